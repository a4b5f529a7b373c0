// Publishes records to Kafka, each partition's in the order given, at least once, for as long as it takes.
//
// One request is outstanding at a broker at a time and carries what arrived meanwhile. What a partition does not
// acknowledge is sent again, identically, to the broker that leads it then. Every few seconds, and after a failure, the
// cluster is looked at: who leads, how many partitions there are, whether the topics are there at all.
import type { Logger } from 'pino'
import { Counter, Gauge, Histogram } from 'prom-client'
import { backoffMs } from './backoff.js'
import { createClusterView } from './cluster-view.js'
import { createCondition } from './condition.js'
import { DEAD_LETTER_REASONS, type DeadLetter, deadLetterTopic } from './contract.js'
import { describe } from './errors.js'
import type { KafkaConnections, KafkaError } from './kafka/connections.js'
import { partitionOf } from './kafka/partitioner.js'
import { createProducer } from './kafka/producer.js'
import type { Topics } from './kafka/topics.js'
import { drained } from './lifecycle.js'
import { createPacker, type Outgoing, type OutgoingRecord } from './outgoing.js'
import { createProblems } from './problems.js'
import { type Batch, createSendQueue, type QueueItem } from './send-queue.js'
import { createSignal } from './signal.js'

const MAX_REQUEST_RECORDS = 1000
const MAX_BATCH_BYTES = 800_000 // Kafka's default for one partition's batch is 1,048,588
const LOOK_MS = 5000 // between two looks at the cluster
const LOOK_AGAIN_MS = 250 // after a failure
const SLOWEST_ATTEMPT = 4 // about 1.6 s between looks for a cluster that is away
const PATIENCE_MS = 2000 // a leader that moves is not worth a line
const STALLED_MS = 10_000 // nothing stored for so long is a standstill, whatever the cause
const WATCH_MS = 1000
const CLUSTER = 'cluster'
const TOO_LARGE = new Set(['MESSAGE_TOO_LARGE', 'RECORD_LIST_TOO_LARGE'])

const published = new Counter({
  name: 'iot_kafka_published_records_total',
  help: 'records stored by Kafka',
  labelNames: ['topic'],
})
const connects = new Counter({
  name: 'iot_kafka_connects_total',
  help: 'times that the producer reached Kafka after it had not',
})
const retries = new Counter({
  name: 'iot_kafka_publish_retries_total',
  help: 'batches of a partition that Kafka did not store and that are sent again',
})
const deadLetters = new Counter({ name: 'iot_dead_letters_total', help: 'dead letters stored', labelNames: ['reason'] })
for (const reason of DEAD_LETTER_REASONS) deadLetters.inc({ reason }, 0) // so that the first one is an increase
const sizes = new Histogram({
  name: 'iot_kafka_publish_batch_records',
  help: 'records in one request',
  buckets: [1, 5, 20, 50, 100, 200, 500, 1000],
})
const durations = new Histogram({
  name: 'iot_kafka_publish_duration_seconds',
  help: 'time from a request to its answer',
  buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5],
})
const publishers = new Set<Publisher>()
new Gauge({
  name: 'iot_kafka_publish_queue_records',
  help: 'records waiting for Kafka',
  collect() {
    this.set([...publishers].reduce((sum, { waiting }) => sum + waiting, 0))
  },
})

export type Publisher = {
  /** Records that wait for Kafka. */
  readonly waiting: number
  start(): void
  /** Queues a record; `onStored` is called once, when Kafka has it (`acks=all`); for each device in order. */
  publish(record: OutgoingRecord, onStored: () => void): void
  /** Queues a dead letter. */
  deadLetter(letter: DeadLetter, onStored: () => void): void
  /** Null while Kafka stores what is published, else what is wrong. */
  check(): string | null
  /** Waits until everything queued is stored, if Kafka takes it in time, then disconnects. */
  stop(withinMs: number): Promise<void>
}

// longer than other functions: the parts of one machine, of a few lines each, around one queue
/**
 * @param options.service the name written to the header `service` of dead letters
 * @param options.part what the publisher is called in readiness and metrics
 * @param options.topics creates the topics where they are missing
 */
export function createPublisher(
  options: { topic: string; service: string; part: string; connections: KafkaConnections; topics: Topics },
  logger: Logger,
): Publisher {
  const { topic, service, connections, topics } = options
  const nowMs = () => performance.now()
  const producer = createProducer(connections)
  const queue = createSendQueue<Outgoing>({
    maxRecords: MAX_REQUEST_RECORDS,
    maxBytes: MAX_BATCH_BYTES,
    partitionOf: (key, partitions) => partitionOf(Buffer.from(key), partitions),
    backoffMs,
    onRedistribute(name, partitions) {
      logger.warn({ topic: name }, 'the topic has fewer partitions than before; distributing records again')
      for (let partition = 0; partition < partitions; partition++) {
        producer.forget(name, partition)
        problems.clear(`${name}/${partition}`)
      }
    },
    nowMs,
  })
  const view = createClusterView({ minInSync: topics.minInSync, nowMs })
  const packer = createPacker({ topic, service, maxBytes: MAX_BATCH_BYTES, nowMs: Date.now })
  const condition = createCondition(
    options.part,
    { wrong: 'Kafka is not accepting records; retrying', right: 'Kafka is accepting records' },
    logger,
  )
  const problems = createProblems(nowMs) // of partitions, and one of the cluster or a topic as a whole
  const busy = new Set<number>() // brokers with a request outstanding
  const stored = createSignal()
  const look = createSignal()
  const stopped = createSignal()
  let isPumpDue = false
  let isReached = false
  let wasUsable = false // readiness begins with the first look at which nothing was wrong
  let stopping = false
  let watching: Promise<void> | undefined
  let watchdog: NodeJS.Timeout | undefined

  const push = (item: QueueItem<Outgoing>) => {
    queue.push(item)
    if (isPumpDue || busy.size === view.leading) return
    isPumpDue = true
    queueMicrotask(pump) // once for what comes together
  }

  /** Sends what can be sent: to every broker that has no request outstanding. */
  const pump = () => {
    isPumpDue = false
    const batches = queue.take((name, partition) => {
      const leader = view.leaderOf(name, partition)
      return leader !== null && !busy.has(leader)
    })
    const byLeader = new Map<number, Batch<Outgoing>[]>()
    for (const batch of batches) {
      const leader = view.leaderOf(batch.topic, batch.partition)
      if (leader === null) throw new Error(`${batch.topic}/${batch.partition} has no leader`)
      const together = byLeader.get(leader)
      if (together) together.push(batch)
      else byLeader.set(leader, [batch])
    }
    for (const [leader, together] of byLeader) void send(leader, together)
  }

  const send = async (leader: number, batches: Batch<Outgoing>[]) => {
    busy.add(leader)
    const sentMs = nowMs()
    const results = await producer.send(
      leader,
      batches.map(({ topic: name, partition, items }) => ({
        topic: name,
        partition,
        records: items.map(({ record }) => record),
      })),
    )
    busy.delete(leader)
    sizes.observe(batches.reduce((sum, { items }) => sum + items.length, 0))
    durations.observe((nowMs() - sentMs) / 1000)
    for (const [index, batch] of batches.entries()) settle(batch, results[index] as KafkaError | null)
    assess()
    pump()
  }

  const settle = (batch: Batch<Outgoing>, error: KafkaError | null) => {
    const name = `${batch.topic}/${batch.partition}`
    if (error === null) {
      problems.clear(name)
      published.inc({ topic: batch.topic }, batch.items.length)
      for (const { record } of batch.items) if (record.letter) deadLetters.inc({ reason: record.letter.reason })
      queue.stored(batch)
      stored.wake()
    } else if (TOO_LARGE.has(error.type ?? '')) {
      const item = queue.tooLarge(batch)
      if (item) push(packer.smaller(item))
    } else {
      if (error.type === 'INVALID_RECORD') giveKeys(batch)
      retries.inc(1)
      problems.set(name, `${name}: ${describe(error)}`)
      setTimeout(pump, queue.failed(batch))
      look.wake()
    }
  }

  /** A compacted topic takes no record without a key. */
  const giveKeys = (batch: Batch<Outgoing>) => {
    for (const { record } of batch.items) record.key ??= ''
  }

  /** Looks at the cluster again and again, sooner when something failed. */
  const watch = async () => {
    for (let attempt = 0; ; ) {
      try {
        const metadata = await connections.metadata([topic, deadLetterTopic(topic)])
        if (!isReached) connects.inc()
        isReached = true
        attempt = 0
        view.adopt(metadata)
        for (const [name, count] of view.counts) queue.setPartitions(name, count)
        if (view.problem === null) problems.clear(CLUSTER)
        else problems.set(CLUSTER, view.problem)
        wasUsable ||= view.problem === null
        assess()
        pump()
        await topics.tend(metadata)
      } catch (error) {
        isReached = false
        problems.set(CLUSTER, describe(error))
        assess()
        attempt++
      }
      if (stopping) return
      if (attempt > 0) await stopped.wait(backoffMs(Math.min(attempt, SLOWEST_ATTEMPT)))
      else if (problems.size > 0) await stopped.wait(LOOK_AGAIN_MS)
      else await look.wait(LOOK_MS)
    }
  }

  /** Decides whether records are being stored, from everything that is known. */
  const assess = () => {
    const problem = problems.lasting(PATIENCE_MS)
    if (problem !== null) condition.wrong(`Kafka: ${problem}`, { waiting: queue.size })
    else if (queue.stalledMs() >= STALLED_MS) {
      const why = producer.isThrottled() ? 'a quota throttles the producer' : 'nothing was stored for 10 s'
      condition.wrong(`Kafka: ${why}`, { waiting: queue.size })
    } else if (problems.size === 0) condition.right()
  }

  const publisher: Publisher = {
    get waiting() {
      return queue.size
    },
    start() {
      publishers.add(publisher)
      watching = watch()
      watchdog = setInterval(assess, WATCH_MS)
    },
    publish: (reading, onStored) => push(packer.reading(reading, onStored)),
    deadLetter: (letter, onStored) => push(packer.letter(letter, onStored)),
    check: () => condition.check() ?? (wasUsable ? null : `Kafka: ${problems.lasting(0) ?? 'not connected yet'}`),
    async stop(withinMs) {
      const isEmpty = async () => {
        while (queue.size > 0) await stored.wait()
      }
      if (!(await drained(isEmpty(), withinMs))) {
        logger.warn({ waiting: queue.size }, 'stopped with records that Kafka has not stored: they are redelivered')
      }
      stopping = true
      clearInterval(watchdog)
      look.wake()
      stopped.wake()
      publishers.delete(publisher)
      await connections.close()
      await watching
    },
  }
  return publisher
}
