// What Kafka keeps of the topic, looked at every half minute: how much, since when, and how long a consumer that stood still
// from now on could do so before retention removes what it has not stored.
import { describe } from '@iot/shared/errors'
import type { KafkaConnections } from '@iot/shared/kafka/connections'
import { bytesOf } from '@iot/shared/kafka/log-dirs'
import { type Bounds, firstSince, type Reached, startOf, type Topic } from '@iot/shared/kafka/topic-state'
import type { Kept } from '@iot/shared/kafka/topics'
import type { Logger } from 'pino'
import { Gauge } from 'prom-client'

const LOOK_MS = 30_000
const STEPS = 10 // by which the time of the first record that is not stored is found: to a thousandth of what is kept

const bytesShown = new Gauge({ name: 'iot_kafka_topic_bytes', help: 'bytes of the topic on its leaders’ disks' })
const oldest = new Gauge({ name: 'iot_kafka_oldest_record_age_seconds', help: 'age of the oldest record of the topic' })
const untilSkipped = new Gauge({
  name: 'iot_kafka_minutes_until_skipped',
  help: 'until retention removes records that are not stored, if nothing were stored from now on',
})
untilSkipped.set(Number.POSITIVE_INFINITY)

/** What is known of a partition. `waitingSeconds` is the age of the first record that is not stored, 0 where all are. */
export type Holding = Bounds & { next: number; waitingSeconds: number; bytes: number; recordsPerSecond: number }

/** How long until retention removes what is not stored, if nothing is stored from now on. */
export function secondsUntilSkipped({ low, high, next, ...held }: Holding, kept: Kept): number {
  const byAge = kept.seconds - held.waitingSeconds
  const size = held.bytes / Math.max(high - low, 1) // of a record
  const growth = held.recordsPerSecond * size
  const room = kept.bytes - (high - next) * size
  const byBytes = growth > 0 ? room / growth : Number.POSITIVE_INFINITY
  return Math.max(Math.min(byAge, byBytes), 0)
}

export type Looker = {
  /** Call it at each look at the topic; most calls do nothing. Never throws. */
  look(state: Topic, bounds: Map<number, Bounds>, committed: Map<number, Reached>): void
}

/** Ages in seconds of the records at these offsets, by halves. */
async function agesOf(
  connections: KafkaConnections,
  topic: string,
  leader: number,
  nexts: Map<number, number>,
  oldestMs: Map<number, number>,
): Promise<Map<number, number>> {
  const now = Date.now()
  const range = new Map([...nexts.keys()].map((partition) => [partition, [oldestMs.get(partition) ?? now, now]]))
  for (let step = 0; step < STEPS && range.size > 0; step++) {
    const middles = new Map([...range].map(([partition, [from = now, to = now]]) => [partition, (from + to) / 2]))
    for (const [partition, first] of await firstSince(connections, leader, topic, middles)) {
      const [from = now, to = now] = range.get(partition) ?? []
      const middle = (from + to) / 2
      // the first one since then is behind the record, so the record is older
      range.set(partition, first === null || first.offset > (nexts.get(partition) ?? 0) ? [from, middle] : [middle, to])
    }
  }
  return new Map([...range].map(([partition, [from = now]]) => [partition, (now - from) / 1000]))
}

/** @param kept what the topic is set to keep; null while that is not known */
export function createLooker(parts: {
  connections: KafkaConnections
  topic: string
  kept: () => Kept | null
  logger: Logger
}): Looker {
  const { connections, topic, kept, logger } = parts
  let lookedMs = Number.NEGATIVE_INFINITY
  let before: { atMs: number; bounds: Map<number, Bounds> } | null = null

  const lookAt = async (
    leader: number,
    nexts: Map<number, number>,
    bounds: Map<number, Bounds>,
    limits: Kept | null,
  ) => {
    const partitions = [...nexts.keys()]
    const firsts = await firstSince(connections, leader, topic, new Map(partitions.map((one) => [one, 0])))
    const oldestMs = new Map([...firsts].flatMap(([one, first]) => (first ? [[one, first.atMs] as const] : [])))
    const behind = new Map([...nexts].filter(([one, next]) => next < (bounds.get(one)?.high ?? 0)))
    const ages = await agesOf(connections, topic, leader, behind, oldestMs)
    const bytes = await bytesOf(connections, leader, topic, partitions).catch(() => null)
    const seconds = [...nexts].map(([partition, next]) => {
      const { low, high } = bounds.get(partition) as Bounds
      const was = before?.bounds.get(partition)?.high ?? high
      const elapsed = before ? (performance.now() - before.atMs) / 1000 : Number.POSITIVE_INFINITY
      const holding: Holding = {
        ...{ low, high, next, bytes: bytes?.get(partition) ?? 0 },
        waitingSeconds: ages.get(partition) ?? 0,
        recordsPerSecond: Math.max(high - was, 0) / elapsed,
      }
      return limits ? secondsUntilSkipped(holding, limits) : Number.POSITIVE_INFINITY
    })
    const total = bytes && [...bytes.values()].reduce((sum, one) => sum + one, 0)
    return { oldestMs: Math.min(...oldestMs.values()), seconds: Math.min(...seconds), bytes: total }
  }

  const look = async (state: Topic, bounds: Map<number, Bounds>, committed: Map<number, Reached>) => {
    const byLeader = new Map<number, Map<number, number>>()
    for (const { partition, leader } of state.partitions) {
      const bound = bounds.get(partition)
      if (leader === null || !bound) continue
      const own = byLeader.get(leader) ?? new Map<number, number>()
      byLeader.set(leader, own.set(partition, startOf(committed.get(partition) ?? null, state.id, bound).offset))
    }
    const found = await Promise.all([...byLeader].map(([leader, nexts]) => lookAt(leader, nexts, bounds, kept())))
    before = { atMs: performance.now(), bounds }
    if (found.length === 0) return
    const since = Math.min(...found.map((one) => one.oldestMs))
    oldest.set(Number.isFinite(since) ? Math.max(Date.now() - since, 0) / 1000 : 0)
    untilSkipped.set(Math.min(...found.map((one) => one.seconds)) / 60)
    const sizes = found.map((one) => one.bytes)
    if (!sizes.includes(null)) bytesShown.set(sizes.reduce<number>((sum, one) => sum + (one ?? 0), 0))
  }

  return {
    look(...args) {
      if (performance.now() - lookedMs < LOOK_MS) return
      if (kept() !== null) lookedMs = performance.now()
      look(...args).catch((error) => logger.debug({ error: describe(error) }, 'Kafka does not tell what it keeps'))
    },
  }
}
