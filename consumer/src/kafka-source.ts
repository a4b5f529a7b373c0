// Reads the assigned partitions side by side and commits what was stored.
//
// Each partition has a lane: records are collected (by size and by time) and written as one batch; one batch of a lane
// is written at a time, so that a device's order holds. What was written is committed beside that, for all lanes in one
// request. The fetch position runs ahead of the commit.
// At every new generation of the group the lanes forget what they hold: it is read again from the committed offset,
// by whoever owns the partition then.

import { backoffMs } from '@iot/shared/backoff'
import { describe } from '@iot/shared/errors'
import type { KafkaClient } from '@iot/shared/kafka/client'
import { drained } from '@iot/shared/lifecycle'
import type { Consumer } from 'kafkajs'
import type { Logger } from 'pino'
import { Counter, Gauge, Histogram } from 'prom-client'
import type { SourceRecord } from './batch.js'

const SESSION_TIMEOUT_MS = 10_000 // after a restart of Kafka the group waits this long for our former membership
const REBALANCE_TIMEOUT_MS = 30_000
const HEARTBEAT_MS = 2000
const LAG_MS = 5000
const REOPEN_MS = 1000
const COMMIT_MS = 250 // between two commits: the fetch behind a commit waits for it, for Kafka serves a connection in order
const LANES_FED = 16 // at a time; each costs kafkajs a round of promises for every fetch, needed or not
const FETCH_WAIT_MS = 1000
const MAX_BATCH_BYTES = 1_000_000 // of keys and values: whatever BATCH_SIZE says, large messages must fit into memory
const FETCH_BYTES = 262_144 // a fetch becomes many times its size in objects; a larger record still comes

const stored = new Counter({ name: 'iot_stored_messages_total', help: 'messages written and committed' })
const joins = new Counter({ name: 'iot_group_joins_total', help: 'times that the consumer group was joined' })
const failures = new Counter({ name: 'iot_batch_retries_total', help: 'batches that failed and were repeated' })
const sizes = new Histogram({
  name: 'iot_batch_messages',
  help: 'messages in a batch',
  buckets: [1, 5, 20, 50, 100, 200, 500, 1000],
})
const durations = new Histogram({
  name: 'iot_batch_duration_seconds',
  help: 'time to write one batch, repeats included',
  buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30],
})
const lags = new Gauge({
  name: 'iot_consumer_lag_messages',
  help: 'messages of a partition that are not stored yet',
  labelNames: ['partition'],
})

type Lane = {
  partition: number
  records: SourceRecord[]
  bytes: number
  firstAtMs: number
  generation: number
  wake: () => void
  room: () => void
}

const sizeOf = ({ key, value }: SourceRecord): number => (key?.length ?? 0) + (value?.length ?? 0)

export type KafkaSource = {
  start(): Promise<void>
  check(): string | null
  /** Reads nothing more, writes and commits what was read, if that can be done in time, and leaves the group. */
  stop(withinMs: number): Promise<void>
}

/** @param write stores one batch for good; what it throws is tried again, with the same batch */
export function createKafkaSource(
  kafka: KafkaClient,
  options: { topic: string; groupId: string; batchSize: number; batchIntervalMs: number },
  write: (records: SourceRecord[], partition: number) => Promise<void>,
  onFatal: (error: unknown) => void,
  logger: Logger,
): KafkaSource {
  const { topic, groupId, batchSize, batchIntervalMs } = options
  const lanes = new Map<number, Lane>()
  const running: Promise<void>[] = []
  const admin = kafka.admin()
  let lagTimer: NodeJS.Timeout | undefined
  let assigned: number[] = []
  let consumer: Consumer | undefined
  const written = new Map<number, { offset: string; count: number }>() // by partition: to be committed
  let committing: Promise<void> | undefined
  let generation = 0
  let joined = false
  let draining = false
  let lastProblem: string | null = null

  const isBatch = (lane: Lane) => lane.records.length >= batchSize || lane.bytes >= MAX_BATCH_BYTES
  const isFull = (lane: Lane) => lane.records.length >= 2 * batchSize || lane.bytes >= 2 * MAX_BATCH_BYTES

  /** The records at the lane's head that make a batch, one at least. */
  const take = (lane: Lane): { records: SourceRecord[]; bytes: number } => {
    let count = 0
    let bytes = 0
    for (const record of lane.records) {
      const size = sizeOf(record)
      if (count > 0 && (count === batchSize || bytes + size > MAX_BATCH_BYTES)) break
      count++
      bytes += size
    }
    return { records: lane.records.slice(0, count), bytes }
  }

  /** Waits until the lane holds a full batch, its oldest record has waited long enough, or all is to be drained. */
  const filled = async (lane: Lane) => {
    for (;;) {
      const waitMs =
        lane.records.length > 0 ? lane.firstAtMs + batchIntervalMs - performance.now() : Number.POSITIVE_INFINITY
      if (isBatch(lane) || waitMs <= 0 || draining) return
      await new Promise<void>((resolve) => {
        const timer = Number.isFinite(waitMs) ? setTimeout(resolve, Math.ceil(waitMs)) : undefined
        lane.wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
  }

  const run = async (lane: Lane) => {
    for (;;) {
      await filled(lane)
      if (lane.records.length === 0) return
      const from = lane.generation
      const { records, bytes } = take(lane)
      const startedMs = performance.now()
      for (let attempt = 0; lane.generation === from; attempt++) {
        try {
          await write(records, lane.partition)
          break
        } catch (error) {
          failures.inc()
          // readiness, log and counter are the sink's; it is asked again within a second
          logger.debug({ error: describe(error), partition: lane.partition }, 'batch not stored')
          await new Promise((resolve) => setTimeout(resolve, backoffMs(Math.min(attempt, 3))))
        }
      }
      if (lane.generation !== from) continue
      durations.observe((performance.now() - startedMs) / 1000)
      lane.records = lane.records.slice(records.length)
      lane.bytes -= bytes
      lane.firstAtMs = performance.now()
      lane.room()
      sizes.observe(records.length)
      toCommit(lane, records)
    }
  }

  /** Commits what was written, one request at a time for all lanes, until nothing is left to commit. */
  const commitWritten = async () => {
    while (written.size > 0) {
      const from = generation
      const taken = [...written]
      written.clear()
      const offsets = taken.map(([partition, { offset }]) => ({ topic, partition, offset }))
      try {
        await consumer?.commitOffsets(offsets)
        if (generation === from) stored.inc(taken.reduce((sum, [, { count }]) => sum + count, 0))
      } catch (err) {
        // the next commit of the partition covers this one; after a rebalance the records are read again
        logger.warn({ error: (err as Error).message, offsets }, 'offsets not committed')
      }
      if (!draining) await new Promise((resolve) => setTimeout(resolve, COMMIT_MS))
    }
    committing = undefined
  }

  const toCommit = (lane: Lane, records: SourceRecord[]) => {
    const offset = String(BigInt(records.at(-1)?.offset ?? 0) + 1n)
    written.set(lane.partition, { offset, count: (written.get(lane.partition)?.count ?? 0) + records.length })
    committing ??= commitWritten()
  }

  /** How far behind the assigned partitions are, as Kafka sees it. */
  const measureLag = async () => {
    if (!joined) return
    try {
      await admin.connect()
      const ends = await admin.fetchTopicOffsets(topic)
      const [group] = await admin.fetchOffsets({ groupId, topics: [topic] })
      const committed = new Map(group?.partitions.map(({ partition, offset }) => [partition, Number(offset)]))
      lags.reset()
      for (const { partition, low, high } of ends) {
        if (!assigned.includes(partition)) continue
        const from = Math.max(committed.get(partition) ?? 0, Number(low))
        lags.set({ partition: String(partition) }, Number(high) - from)
      }
    } catch {
      // Kafka is away: the last known lag stays, readiness says the rest
    }
  }

  const laneOf = (partition: number): Lane => {
    let lane = lanes.get(partition)
    if (!lane) {
      lane = { partition, records: [], bytes: 0, firstAtMs: 0, generation, wake: () => {}, room: () => {} }
      lanes.set(partition, lane)
      running.push(run(lane).catch(onFatal))
    }
    return lane
  }

  const forgetLanes = () => {
    generation++
    written.clear()
    for (const lane of lanes.values()) {
      lane.generation = generation
      lane.records = []
      lane.bytes = 0
      lane.room()
    }
  }

  const open = () => {
    const made = kafka.consumer({
      groupId,
      sessionTimeout: SESSION_TIMEOUT_MS,
      rebalanceTimeout: REBALANCE_TIMEOUT_MS,
      heartbeatInterval: HEARTBEAT_MS,
      maxWaitTimeInMs: FETCH_WAIT_MS,
      maxBytesPerPartition: FETCH_BYTES,
      minBytes: 1,
      allowAutoTopicCreation: false,
      retry: { restartOnFailure: async () => true },
    })
    made.on('consumer.group_join', ({ payload }) => {
      forgetLanes()
      joins.inc()
      joined = true
      lastProblem = null
      assigned = payload.memberAssignment[topic] ?? []
      logger.info({ partitions: assigned }, 'partitions assigned')
    })
    for (const event of ['consumer.rebalancing', 'consumer.stop', 'consumer.disconnect'] as const)
      made.on(event, () => {
        joined = false
      })
    made.on('consumer.crash', ({ payload }) => {
      joined = false
      const problem = describe(payload.error)
      if (lastProblem !== problem) logger.warn({ error: problem, restart: payload.restart }, 'Kafka consumer failed')
      lastProblem = problem
      if (payload.restart || draining) return
      // kafkajs gives up on errors of Kafka's that it does not know as passing, and on ours
      if (payload.error.name.startsWith('KafkaJS')) setTimeout(() => consume().catch(onFatal), REOPEN_MS)
      else onFatal(payload.error)
    })
    return made
  }

  /** Joins the group and reads, trying until Kafka is there. */
  const consume = async () => {
    for (let attempt = 0; !draining; attempt++) {
      const made = open()
      try {
        await made.connect()
        await made.subscribe({ topics: [topic], fromBeginning: true })
        consumer = made
        break
      } catch (err) {
        await made.disconnect().catch(() => {})
        lastProblem = describe(err)
        if (attempt % 20 === 0) logger.warn({ error: lastProblem }, 'waiting for Kafka')
        await new Promise((resolve) => setTimeout(resolve, backoffMs(attempt)))
      }
    }
    if (draining) return
    await consumer?.run({
      autoCommit: false,
      eachBatchAutoResolve: false,
      partitionsConsumedConcurrently: LANES_FED,
      eachBatch: async ({ batch, resolveOffset, heartbeat, isRunning, isStale }) => {
        const lane = laneOf(batch.partition)
        const from = lane.generation
        // one batch being written and one being filled: beyond that Kafka keeps the rest
        for (const message of batch.messages) {
          while (isFull(lane)) {
            const room = new Promise<void>((resolve) => {
              const timer = setTimeout(resolve, HEARTBEAT_MS)
              lane.room = () => {
                clearTimeout(timer)
                resolve()
              }
            })
            await room
            await heartbeat()
            if (lane.generation !== from || !isRunning() || isStale() || draining) return
          }
          if (lane.records.length === 0) lane.firstAtMs = performance.now()
          lane.records.push(message)
          lane.bytes += sizeOf(message)
          resolveOffset(message.offset)
          if (lane.records.length === 1 || isBatch(lane)) lane.wake()
        }
        await heartbeat()
      },
    })
  }

  return {
    start() {
      lagTimer = setInterval(() => void measureLag(), LAG_MS)
      return consume()
    },
    check: () => (!joined ? `Kafka: ${lastProblem ?? 'not joined yet'}` : lastProblem),
    async stop(withinMs) {
      clearInterval(lagTimer)
      consumer?.pause([{ topic }])
      draining = true
      for (const lane of lanes.values()) {
        lane.room()
        lane.wake()
      }
      if (!(await drained(Promise.all(running), withinMs))) {
        logger.warn({ error: lastProblem }, 'stopped with batches not written: Kafka keeps them')
        forgetLanes()
      }
      await committing
      await Promise.all([consumer?.disconnect(), admin.disconnect()])
    },
  }
}
