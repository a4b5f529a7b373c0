// One cell of the matrix: a load, a fault in the middle of it, and the count of what became of every reading.

import { isDeepStrictEqual } from 'node:util'
import { historyKey, lastStateKey } from '@iot/shared/contract'
import type { Cluster } from '@iot/stack/cluster'
import { eventually, type Offsets, type Platform } from '../platform.js'
import { type Counts, check, type Found, type Span } from './check.js'
import { pause } from './faults.js'
import { createFleet, type Fleet } from './fleet.js'
import { type Pauses, watchPauses } from './pauses.js'

export type Load = { devices: number; ratePerSecond: number; beforeMs: number; afterMs: number }
export type Row = Counts &
  Pauses & {
    fault: string
    /** From the moment the repaired server answered until all was stored and committed. */
    recovery_s: number
    bridge_mb: number
    consumer_mb: number
  }

/** A row of a table: what is done under load, and how that load differs. */
export type Cell = {
  /** Also starts the ids of its devices: each cell has devices of its own. */
  name: string
  load?: Partial<Load>
  /** What is done before the load begins. */
  prepare?(): Promise<unknown>
  /** Does harm and repairs it. @returns spans in which the MQTT broker lost what it had acknowledged */
  harm(): Promise<Span[]> | Promise<void>
}

const DRAIN_MS = 60_000
const SAMPLE_MS = 250

/** Runs one cell after the other on the same services, and says each row as it comes. */
export async function runCells(
  platform: Platform,
  cluster: Cluster,
  cells: Cell[],
  load: Load,
  say: (line: string) => void,
): Promise<Row[]> {
  const rows: Row[] = []
  for (const { name, load: different, prepare, harm } of cells) {
    await prepare?.()
    const row = await runCell(platform, cluster, name, { ...load, ...different }, harm)
    rows.push(row)
    say(JSON.stringify(row))
  }
  return rows
}

/** @param name starts the ids of its devices: each cell has devices of its own */
export async function runCell(
  platform: Platform,
  cluster: Cluster,
  name: string,
  load: Load,
  harm: Cell['harm'],
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
  }, SAMPLE_MS)
  const pauses = await watchPauses(platform, platform.id(`${name}-*`))
  try {
    await fleet.start()
    await pause(load.beforeMs)
    pauses.start()
    const forgiven = (await harm()) ?? []
    const repairedMs = performance.now()
    await pause(load.afterMs)
    const longest = pauses.result()
    await fleet.stop()
    const { counts, atMs } = await settled(platform, fleet, starts, letterStarts, forgiven)
    const recovery_s = Math.round((atMs - repairedMs) / 100) / 10
    return { fault: name, ...counts, recovery_s, ...longest, bridge_mb: peak.bridge, consumer_mb: peak.consumer }
  } finally {
    clearInterval(sampler)
    pauses.end()
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
    await eventually(
      async () => (await platform.lag()) === 0,
      () => `lag 0: ${lastWords(platform)}`,
      DRAIN_MS,
    )
    const atMs = performance.now()
    const ends = await platform.ends()
    const found = await look(platform, [...fleet.sent.keys()], starts, letterStarts)
    const counts = check(fleet.sent, found, forgiven)
    const isComplete = counts.missing + counts.missing_in_history + counts.wrong_last_state === 0
    const stoodStill = isDeepStrictEqual(await platform.ends(), ends)
    if ((isComplete && stoodStill) || atMs > deadlineMs) return { counts, atMs }
  }
}

const lastWords = ({ bridge, consumer }: Platform) =>
  [bridge, consumer].map((service) => service.log().split('\n').slice(-15).join('\n')).join('\n')

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
