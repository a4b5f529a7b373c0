// Reads topics for tests, from outside of the product, also while a cluster's brokers come and go: a question that fails
// is asked again, and a record is told once however often it is fetched.
import { randomBytes } from 'node:crypto'
import type { Admin, Kafka, KafkaMessage } from 'kafkajs'
import { eventually } from './eventually.js'

const ANSWER_MS = 60_000

export type StoredRecord = KafkaMessage & { partition: number }
/** By partition. */
export type Offsets = Map<number, number>

/** Asks Kafka something that changes nothing, until it is answered. */
export async function ask<T>(kafka: Kafka, question: (admin: Admin) => Promise<T>): Promise<T> {
  const answer = await eventually(
    async () => {
      const admin = kafka.admin()
      try {
        await admin.connect()
        return { value: await question(admin) }
      } finally {
        await admin.disconnect()
      }
    },
    'an answer of Kafka',
    ANSWER_MS,
  )
  return answer.value
}

/** Where each partition of a topic ends now. */
export async function endsOf(kafka: Kafka, topic: string): Promise<Offsets> {
  const ends = await ask(kafka, (admin) => admin.fetchTopicOffsets(topic))
  return new Map(ends.map(({ partition, high }) => [partition, Number(high)]))
}

/** Records of a topic that a group has not committed yet, over all partitions. */
export async function lagOf(kafka: Kafka, topic: string, groupId: string): Promise<number> {
  return ask(kafka, async (admin) => {
    const ends = await admin.fetchTopicOffsets(topic)
    const [group] = await admin.fetchOffsets({ groupId, topics: [topic] })
    const committed = new Map(
      group?.partitions.map(({ partition, offset }) => [partition, Math.max(Number(offset), 0)]),
    )
    return ends.reduce((sum, { partition, high }) => sum + Number(high) - (committed.get(partition) ?? 0), 0)
  })
}

/** Reads from `starts`, else from the beginning, until `isDone`; each partition's records in their order, each once. */
export async function readTopic(
  kafka: Kafka,
  topic: string,
  starts: Offsets,
  onRecord: (record: StoredRecord) => void,
  isDone: () => boolean,
): Promise<void> {
  const next = new Map(starts)
  const reader = kafka.consumer({ groupId: `look-${randomBytes(4).toString('hex')}`, maxWaitTimeInMs: 200 })
  try {
    await reader.connect()
    await reader.subscribe({ topics: [topic], fromBeginning: true })
    await reader.run({
      partitionsConsumedConcurrently: 16,
      eachBatch: async ({ batch: { partition, messages }, resolveOffset }) => {
        for (const message of messages) {
          resolveOffset(message.offset)
          const offset = Number(message.offset)
          if (offset < (next.get(partition) ?? 0)) continue // before the start, or fetched again after a rebalance
          next.set(partition, offset + 1)
          onRecord({ ...message, partition })
        }
      },
    })
    for (const [partition, offset] of starts) reader.seek({ topic, partition, offset: String(offset) })
    await eventually(isDone, `the records of ${topic}`)
  } finally {
    await reader.disconnect()
  }
}

/** Reads a topic from `starts` to where it ends now. */
export async function readToEnd(
  kafka: Kafka,
  topic: string,
  starts: Offsets,
  onRecord: (record: StoredRecord) => void,
): Promise<void> {
  const ends = await endsOf(kafka, topic)
  const left = new Set([...ends].filter(([partition, end]) => end > (starts.get(partition) ?? 0)).map(([at]) => at))
  const take = (record: StoredRecord) => {
    const end = ends.get(record.partition) ?? 0
    if (Number(record.offset) < end) onRecord(record)
    if (Number(record.offset) >= end - 1) left.delete(record.partition)
  }
  if (left.size > 0) await readTopic(kafka, topic, starts, take, () => left.size === 0)
}
