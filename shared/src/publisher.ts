// Publishes records to Kafka in the order given, at least once, for as long as it takes.
//
// One send is outstanding at a time and carries what arrived meanwhile; a send that failed is repeated identically,
// so that a device's order holds. The producer is idempotent: the broker drops a repeat whose first try did arrive,
// also one that a frozen broker finds in its socket later. A producer whose sequence the broker refuses is replaced.
import type { Message, Producer } from 'kafkajs'
import type { Logger } from 'pino'
import { Counter, Gauge, Histogram } from 'prom-client'
import { backoffMs } from './backoff.js'
import { DEAD_LETTER_REASONS, type DeadLetter, deadLetterTopic } from './contract.js'
import { describe } from './errors.js'
import { type KafkaClient, stickyPartitioner } from './kafka.js'
import { drained } from './lifecycle.js'

const MAX_BATCH_RECORDS = 1000
const MAX_BATCH_BYTES = 800_000 // Kafka's default for one partition's batch is 1,048,588
const HEADER_BYTES = 300
const SEQUENCE_ERRORS =
  /OUT_OF_ORDER_SEQUENCE_NUMBER|DUPLICATE_SEQUENCE_NUMBER|UNKNOWN_PRODUCER_ID|INVALID_PRODUCER_EPOCH|INVALID_PRODUCER_ID_MAPPING/

const published = new Counter({
  name: 'iot_kafka_published_records_total',
  help: 'records stored by Kafka',
  labelNames: ['topic'],
})
const connects = new Counter({ name: 'iot_kafka_connects_total', help: 'connections of the producer to Kafka' })
const retries = new Counter({
  name: 'iot_kafka_publish_retries_total',
  help: 'sends to Kafka that failed and were repeated',
})
const deadLetters = new Counter({ name: 'iot_dead_letters_total', help: 'dead letters stored', labelNames: ['reason'] })
for (const reason of DEAD_LETTER_REASONS) deadLetters.inc({ reason }, 0) // so that the first one is an increase
const sizes = new Histogram({
  name: 'iot_kafka_publish_batch_records',
  help: 'records in one send',
  buckets: [1, 5, 20, 50, 100, 200, 500, 1000],
})
const durations = new Histogram({
  name: 'iot_kafka_publish_duration_seconds',
  help: 'time from a send to its acknowledgement',
  buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5],
})

/** A record for `iot-data`; `source` and `original` (the payload as it came) are what its dead letter would carry. */
export type OutgoingRecord = { deviceId: string; value: string; source: string; original: Buffer }

type Item = {
  topic: string
  message: Message
  bytes: number
  record?: OutgoingRecord
  letter?: DeadLetter
  onStored: () => void
}

export type Publisher = {
  start(): void
  /** Queues a record; `onStored` is called once, in the order of the calls, when Kafka has it (`acks=all`). */
  publish(record: OutgoingRecord, onStored: () => void): void
  /** Queues a dead letter, in the same order as the records. */
  deadLetter(letter: DeadLetter, onStored: () => void): void
  /** Null while Kafka takes what is published, else what is wrong. */
  check(): string | null
  /** Waits until everything queued is stored, if Kafka takes it in time, then disconnects. */
  stop(withinMs: number): Promise<void>
}

/** @param service the name written to the header `service` of dead letters */
export function createPublisher(kafka: KafkaClient, topic: string, service: string, logger: Logger): Publisher {
  let queue: Item[] = []
  let producer: Producer | undefined
  let problem: string | null = 'not connected yet'
  let maxBytes = MAX_BATCH_BYTES
  let cutBytes = MAX_BATCH_BYTES // what is kept of a dead letter that Kafka does not take whole
  let wake = () => {}
  let stopping = false
  let running: Promise<void> | undefined

  new Gauge({
    name: 'iot_kafka_publish_queue_records',
    help: 'records waiting for Kafka',
    collect() {
      this.set(queue.length)
    },
  })

  const letterItem = (letter: DeadLetter, onStored: () => void, cut = false): Item => {
    const value = cut && letter.value ? letter.value.subarray(0, cutBytes) : letter.value
    const headers: Record<string, string> = {
      reason: letter.reason,
      source: letter.source.slice(0, 1000),
      service,
      timestamp: String(Math.floor(Date.now() / 1000)),
    }
    if (cut && letter.value) headers.truncated_from = String(letter.value.length)
    const message = { key: letter.deviceId ?? null, value, headers, partition: 0 }
    return { topic: deadLetterTopic(topic), message, bytes: (value?.length ?? 0) + HEADER_BYTES, letter, onStored }
  }

  const push = (item: Item) => {
    queue.push(item)
    wake()
  }

  const take = (): Item[] => {
    let bytes = 0
    let count = 0
    for (const item of queue) {
      bytes += item.bytes
      if (count > 0 && (bytes > maxBytes || count === MAX_BATCH_RECORDS)) break
      count++
    }
    return queue.slice(0, count)
  }

  /** Connects anew with the same producer id, so that the broker still knows a repeat for what it is. */
  const reconnect = async () => {
    await producer?.disconnect().catch(() => {})
    producer ??= kafka.producer({
      idempotent: true,
      maxInFlightRequests: 1,
      allowAutoTopicCreation: false,
      createPartitioner: stickyPartitioner,
      retry: { retries: Number.MAX_SAFE_INTEGER }, // silences a warning; the client's own limit is what holds
    })
    await producer.connect()
    connects.inc()
  }

  const replaceProducer = async () => {
    await producer?.disconnect().catch(() => {})
    producer = undefined
  }

  const send = async (batch: Item[]) => {
    if (!producer || problem !== null) await reconnect()
    const byTopic = new Map<string, Message[]>()
    for (const { topic: to, message } of batch) {
      const messages = byTopic.get(to)
      if (messages) messages.push(message)
      else byTopic.set(to, [message])
    }
    const topicMessages = [...byTopic].map(([to, messages]) => ({ topic: to, messages }))
    await producer?.sendBatch({ acks: -1, topicMessages })
  }

  /** Kafka refused the batch for its size: less at a time, down to the one record that is too large by itself. */
  const shrink = async (batch: Item[]) => {
    await replaceProducer() // another grouping under the same sequence numbers would be taken for a repeat
    const [only] = batch
    if (batch.length > 1) {
      maxBytes = batch.reduce((sum, item) => sum + item.bytes, 0) / 2
    } else if (only) {
      const { record, letter } = only
      if (record) {
        const { source, deviceId, original } = record
        queue[0] = letterItem({ reason: 'too_large', source, deviceId, value: original }, only.onStored)
      } else if (letter) {
        cutBytes = Math.floor(Math.min(cutBytes, letter.value?.length ?? 0) / 2)
        queue[0] = letterItem(letter, only.onStored, true)
      }
    }
  }

  const run = async () => {
    for (let attempt = 0; ; ) {
      if (queue.length === 0) {
        if (stopping) return
        if (producer && problem === null) {
          await new Promise<void>((resolve) => {
            wake = resolve
          })
          continue
        }
      }
      const batch = take()
      try {
        const sentMs = performance.now()
        await send(batch)
        if (batch.length > 0) {
          sizes.observe(batch.length)
          durations.observe((performance.now() - sentMs) / 1000)
        }
        attempt = 0
        if (problem !== null) logger.info('Kafka takes records')
        problem = null
        maxBytes = Math.min(maxBytes * 2, MAX_BATCH_BYTES)
        queue = queue.slice(batch.length)
        let letters = 0
        for (const { letter, onStored } of batch) {
          if (letter) {
            letters++
            deadLetters.inc({ reason: letter.reason })
          }
          onStored()
        }
        published.inc({ topic }, batch.length - letters)
        published.inc({ topic: deadLetterTopic(topic) }, letters)
      } catch (err) {
        const { type = '', cause } = err as { type?: string; cause?: { type?: string } }
        const code = type || cause?.type || ''
        if (batch.length > 0 && /MESSAGE_TOO_LARGE|RECORD_LIST_TOO_LARGE/.test(code)) {
          await shrink(batch)
          continue
        }
        retries.inc()
        if (attempt === 0)
          logger.warn({ error: describe(err), waiting: queue.length }, 'Kafka does not take records, trying on')
        problem = `Kafka: ${describe(err)}`
        if (SEQUENCE_ERRORS.test(code)) await replaceProducer()
        await new Promise((resolve) => setTimeout(resolve, backoffMs(attempt++)))
        if (stopping && queue.length === 0) return
      }
    }
  }

  return {
    start() {
      running = run()
    },
    publish(record, onStored) {
      const bytes = Buffer.byteLength(record.value) + HEADER_BYTES
      push({ topic, message: { key: record.deviceId, value: record.value }, bytes, record, onStored })
    },
    deadLetter(letter, onStored) {
      push(letterItem(letter, onStored, (letter.value?.length ?? 0) > MAX_BATCH_BYTES))
    },
    check: () => problem,
    async stop(withinMs) {
      stopping = true
      wake()
      if (running && !(await drained(running, withinMs))) {
        logger.warn({ waiting: queue.length }, 'stopped with records that Kafka has not taken: they come again')
      }
      await producer?.disconnect()
    },
  }
}
