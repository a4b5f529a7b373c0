// How long ingestion and live updates stood still at worst, as seen from outside.
import type { Platform } from '../platform.js'

const SAMPLE_MS = 250

export type Pauses = { ingest_pause_s: number; updates_pause_s: number }

/** The longest time between two signs of progress, from the first `start` on. */
export function createPauseMeter(nowMs = () => performance.now()) {
  let lastMs: number | undefined
  let longestMs = 0
  const sinceLast = () => (lastMs === undefined ? 0 : nowMs() - lastMs)
  return {
    start() {
      lastMs = nowMs()
    },
    progress() {
      longestMs = Math.max(longestMs, sinceLast())
      if (lastMs !== undefined) lastMs = nowMs()
    },
    /** Until now, in seconds with one decimal. */
    seconds: () => Math.round(Math.max(longestMs, sinceLast()) / 100) / 10,
  }
}

/** Watches the records that the bridge has stored (to a quarter of a second), and the live updates of some devices. */
export async function watchPauses(platform: Platform, updatesOf: string) {
  const ingest = createPauseMeter()
  const updates = createPauseMeter()
  let published: number | undefined
  const sampler = setInterval(async () => {
    const count = await publishedRecords(platform)
    if (count !== undefined && count !== published) ingest.progress()
    published = count ?? published
  }, SAMPLE_MS)
  const listener = platform.redis.duplicate()
  listener.on('error', () => {})
  listener.on('pmessage', updates.progress)
  await listener.psubscribe(`device-updates:${updatesOf}`)
  return {
    start() {
      ingest.start()
      updates.start()
    },
    result: (): Pauses => ({ ingest_pause_s: ingest.seconds(), updates_pause_s: updates.seconds() }),
    end() {
      clearInterval(sampler)
      listener.disconnect()
    },
  }
}

/** Undefined while the bridge does not answer. */
async function publishedRecords({ bridge, topic }: Platform): Promise<number | undefined> {
  try {
    const line = `iot_kafka_published_records_total{topic="${topic}"} `
    const found = (await bridge.metrics()).split('\n').find((text) => text.startsWith(line))
    return found === undefined ? undefined : Number(found.slice(line.length))
  } catch {
    return undefined
  }
}
