// One cell of the matrix: a load, a fault in the middle of it, and the count of what became of every reading.

import { isDeepStrictEqual } from 'node:util'
import { historyKey, lastStateKey } from '@iot/shared/contract'
import type { Cluster } from '@iot/stack/cluster'
import { eventually, type Offsets, type Platform } from '../platform.js'
import { type Counts, check, type Found, type Span } from './check.js'
import { createFleet, type Fleet } from './fleet.js'

export const COMPONENTS = ['bridge', 'consumer', 'kafka', 'redis', 'mosquitto'] as const
export const KINDS = ['SIGKILL', 'SIGSTOP', 'SIGTERM'] as const
export type Fault = { component: (typeof COMPONENTS)[number]; kind: (typeof KINDS)[number] }

export type Load = { devices: number; ratePerSecond: number; beforeMs: number; afterMs: number }
export type Row = Counts & {
  fault: string
  /** From the moment the repaired server answered until all was stored and committed. */
  recovery_s: number
  /** The longest time without a record that Kafka stored, and without a live update. */
  ingest_pause_s: number
  updates_pause_s: number
  bridge_mb: number
  consumer_mb: number
}

const DOWN_MS = 3000
const DRAIN_MS = 60_000
const SAMPLE_MS = 250
/** What Mosquitto had not written to its file when it was killed; it writes every 5 s. */
const BROKER_UNSAVED_MS = 10_000

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** Does harm and repairs it; answers when the repaired one answers. A span is what a killed broker may have lost. */
export async function strike(platform: Platform, cluster: Cluster, fault: Fault, frozenMs: number): Promise<Span[]> {
  const { component, kind } = fault
  const fromMs = Date.now() - BROKER_UNSAVED_MS
  const isService = component === 'bridge' || component === 'consumer'
  const target = isService ? platform[component] : cluster[component]
  if (kind === 'SIGSTOP') {
    await target.signal('SIGSTOP')
    await pause(frozenMs)
    await target.signal('SIGCONT')
    return []
  }
  if (kind === 'SIGKILL') await (isService ? platform[component].kill() : cluster[component].signal('SIGKILL'))
  else {
    const code = await target.stop()
    if (isService && code !== 0) throw new Error(`${component} ended with ${code} after SIGTERM`)
  }
  await pause(DOWN_MS)
  await target.start()
  return component === 'mosquitto' && kind === 'SIGKILL' ? [{ fromMs, toMs: Date.now() }] : []
}

/** @param name starts the ids of its devices: each cell has devices of its own */
export async function runCell(
  platform: Platform,
  cluster: Cluster,
  name: string,
  load: Load,
  harm: () => Promise<Span[]>,
): Promise<Row> {
  const starts = await platform.ends()
  const letterStarts = await platform.ends(`${platform.topic}-dlq`)
  const ids = Array.from({ length: load.devices }, (_, index) => platform.id(`${name}-${index}`))
  const url = `mqtt://127.0.0.1:${cluster.mosquitto.port}`
  const fleet = createFleet({ url, prefix: platform.prefix, ids, ratePerSecond: load.ratePerSecond })
  const peak = { bridge: 0, consumer: 0 }
  const sampler = setInterval(() => {
    for (const service of ['bridge', 'consumer'] as const) {
      peak[service] = Math.max(peak[service], platform[service].rssMb())
    }
    void publishedRecords(platform).then(ingest.saw)
  }, SAMPLE_MS)
  const ingest = longestPause()
  const updates = longestPause()
  const listener = platform.redis.duplicate()
  listener.on('error', () => {})
  listener.on('pmessage', () => updates.saw(updates.last + 1))
  await listener.psubscribe(`device-updates:${platform.id(`${name}-*`)}`)
  try {
    await fleet.start()
    await pause(load.beforeMs)
    ingest.start()
    updates.start()
    const forgiven = await harm()
    const repairedMs = performance.now()
    await pause(load.afterMs)
    const pauses = { ingest_pause_s: ingest.seconds(), updates_pause_s: updates.seconds() }
    await fleet.stop()
    const { counts, atMs } = await settled(platform, fleet, starts, letterStarts, forgiven)
    const recovery_s = Math.round((atMs - repairedMs) / 100) / 10
    return { fault: name, ...counts, recovery_s, ...pauses, bridge_mb: peak.bridge, consumer_mb: peak.consumer }
  } finally {
    clearInterval(sampler)
    listener.disconnect()
  }
}

/** The longest time in which a number did not change. */
function longestPause() {
  let sinceMs = Number.POSITIVE_INFINITY
  let longestMs = 0
  const pauseOf = {
    last: 0,
    start() {
      sinceMs = performance.now()
    },
    saw(value: number) {
      if (Number.isNaN(value) || value === pauseOf.last) return
      pauseOf.last = value
      longestMs = Math.max(longestMs, performance.now() - sinceMs)
      if (Number.isFinite(sinceMs)) sinceMs = performance.now()
    },
    seconds: () => Math.round(Math.max(longestMs, performance.now() - sinceMs) / 100) / 10,
  }
  return pauseOf
}

/** NaN while the bridge does not answer. */
async function publishedRecords({ bridge, topic }: Platform): Promise<number> {
  try {
    return Number(
      new RegExp(`^iot_kafka_published_records_total\\{topic="${topic}"\\} (\\d+)$`, 'm').exec(
        await bridge.metrics(),
      )?.[1],
    )
  } catch {
    return Number.NaN
  }
}

/**
 * Waits until nothing lags, and counts; what the broker may still hold is waited for as long as something is missing.
 * Kafka and Redis are not read at one moment, so that a look counts only if nothing arrived while it lasted.
 */
async function settled(platform: Platform, fleet: Fleet, starts: Offsets, letterStarts: Offsets, forgiven: Span[]) {
  const deadlineMs = performance.now() + DRAIN_MS
  await platform.bridge.ready(DRAIN_MS) // until it is back what the broker holds is still to come
  for (;;) {
    await eventually(async () => (await platform.lag()) === 0, 'lag 0', DRAIN_MS)
    const atMs = performance.now()
    const ends = await platform.ends()
    const found = await look(platform, [...fleet.sent.keys()], starts, letterStarts)
    const counts = check(fleet.sent, found, forgiven)
    const isComplete = counts.missing + counts.missing_in_history + counts.wrong_last_state === 0
    const stoodStill = isDeepStrictEqual(await platform.ends(), ends)
    if ((isComplete && stoodStill) || atMs > deadlineMs) return { counts, atMs }
  }
}

async function look(platform: Platform, ids: string[], starts: Offsets, letterStarts: Offsets): Promise<Found> {
  const { redis, topic } = platform
  const found: Found = { records: new Map(), histories: new Map(), lastStates: new Map(), deadLetters: 0 }
  await platform.recordsFrom(starts, ({ key, value, partition }) => {
    const device = String(key)
    const own = found.records.get(device)
    const record = { partition, text: String(value) }
    if (own) own.push(record)
    else found.records.set(device, [record])
  })
  await platform.recordsFrom(letterStarts, () => found.deadLetters++, `${topic}-dlq`)
  for (const id of ids) {
    found.histories.set(id, await redis.zrange(historyKey(id), '0', '-1'))
    found.lastStates.set(id, await redis.hgetall(lastStateKey(id)))
  }
  return found
}
