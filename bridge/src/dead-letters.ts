// Dead letters as they stand on their topic: read one after the other, shown, and made into records again.
import { randomBytes } from 'node:crypto'
import { decodeMessage } from '@iot/shared/contract'
import type { KafkaClient, KafkaMessage } from '@iot/shared/kafka/client'
import { type BinaryPayloads, ingest } from './ingest.js'
import { parseTopic } from './topics.js'

const PARTITION = 0 // all dead letters are in it
const PREVIEW_CHARS = 60
const GROUP_TIMES = { sessionTimeout: 6000, rebalanceTimeout: 6000, heartbeatInterval: 2000 } // if it is killed: wait 6 s
const MAX_CELL_CHARS = 200 // anybody who can write to the topic chooses keys and headers
const TIMESTAMP = /^(0|[1-9]\d{0,11})(\.\d{6})?$/

export type Letter = {
  offset: string
  key: string | null
  value: Buffer | null
  /** When it became one: Unix time in seconds as its header says, or as Kafka does where that is of no use. */
  timestamp: string
  /** A header as text; '' where there is none. */
  header(name: string): string
}

export function asLetter({ offset, key, value, headers, timestamp }: KafkaMessage): Letter {
  const header = (name: string) => String(headers?.[name] ?? '')
  const said = header('timestamp')
  return {
    offset,
    key: key === null ? null : key.toString(),
    value,
    timestamp: TIMESTAMP.test(said) ? said : String(Math.max(0, Math.floor(Number(timestamp) / 1000))),
    header,
  }
}

/** A letter as a row of a table; whatever stands in it, it has a bounded size. */
export function rowOf(letter: Letter) {
  const { offset, key, value, timestamp, header } = letter
  const cell = (text: string) => (text.length > MAX_CELL_CHARS ? `${text.slice(0, MAX_CELL_CHARS)}…` : text)
  return {
    offset,
    when: new Date(Number(timestamp) * 1000).toISOString(),
    reason: cell(header('reason')),
    source: cell(header('source')),
    device: cell(key ?? ''),
    bytes: cell(header('truncated_from')) || (value?.length ?? 0),
    preview: JSON.stringify(value?.subarray(0, PREVIEW_CHARS).toString('latin1') ?? ''),
  }
}

export type RestoreOptions = {
  prefix: string
  maxPayloadBytes: number
  binary: BinaryPayloads
  /** What stands in the place of the letter's value. */
  repaired?: Buffer | undefined
  /** Whose reading it is, where the letter does not say so. */
  device?: string | undefined
}

/**
 * The record for `iot-data`: the value as it is where it is a whole message, else made of the payload, with the time of
 * the dead letter as its timestamp; or why it cannot go back.
 */
export function restore(
  letter: Letter,
  { prefix, maxPayloadBytes, binary, repaired, device }: RestoreOptions,
): { key: string; value: string } | { problem: string } {
  const cutFrom = letter.header('truncated_from')
  if (repaired === undefined && cutFrom) return { problem: `only the beginning of ${cutFrom} bytes is here` }
  const value = repaired ?? letter.value ?? Buffer.alloc(0)
  const key = device ?? letter.key ?? parseTopic(letter.header('source'), prefix)?.deviceId ?? ''
  const message = decodeMessage(Buffer.from(key), value)
  if (message) return { key, value: message.text }
  const result = ingest(key, value, maxPayloadBytes, letter.timestamp, binary)
  if (!result.ok) return { problem: result.reason }
  if (letter.header('reason') === 'invalid_message') return { problem: 'not of the form of iot-data' }
  return { key, value: result.value }
}

/** Where a reading begins: at an offset, or where the last one under this name got to. */
export type Start = { from: bigint } | { resume: string; from?: bigint | undefined }

/** What is done with a letter. `commit` remembers, under the reading's name, that it is done with; false ends the reading. */
export type OnLetter = (letter: Letter, commit: () => Promise<void>) => Promise<boolean>

/**
 * Reads the letters from an offset to where the topic ends now, one after the other, so that memory does not grow.
 * @param onLetter is waited for
 * @returns the offset at which it began
 * @throws what `onLetter` throws, or what keeps Kafka from being read
 */
export async function readLetters(
  kafka: KafkaClient,
  topic: string,
  startAt: Start,
  onLetter: OnLetter,
): Promise<bigint> {
  const admin = kafka.admin()
  await admin.connect()
  const isNamed = 'resume' in startAt
  const groupId = isNamed ? `dlq.${topic}.${startAt.resume}` : `dlq-${randomBytes(6).toString('hex')}`
  const consumer = kafka.consumer({ groupId, ...GROUP_TIMES, maxWaitTimeInMs: 200, allowAutoTopicCreation: false })
  try {
    if (!(await admin.listTopics()).includes(topic)) throw new Error(`there is no topic ${topic}`)
    const ends = partitionOf(await admin.fetchTopicOffsets(topic))
    if (!ends) throw new Error(`${topic} has no partition ${PARTITION}`)
    const [group] = isNamed ? await admin.fetchOffsets({ groupId, topics: [topic] }) : []
    const kept = BigInt(partitionOf(group?.partitions ?? [])?.offset ?? -1)
    const wanted = startAt.from ?? kept
    const low = BigInt(ends.low)
    const start = wanted > low ? wanted : low
    const end = BigInt(ends.high)
    if (start >= end) return start
    await consumer.connect()
    await consumer.subscribe({ topics: [topic], fromBeginning: true })
    const commit = (offset: bigint) => () =>
      consumer.commitOffsets([{ topic, partition: PARTITION, offset: String(offset) }])
    await new Promise<void>((resolve, reject) => {
      let isDone = false
      const finish = (error?: unknown) => {
        isDone = true
        if (error === undefined) resolve()
        else reject(error)
      }
      consumer.on('consumer.crash', ({ payload }) => finish(payload.error))
      consumer.on('consumer.group_join', ({ payload }) => {
        if (!payload.memberAssignment[topic]) finish(new Error('the same is running elsewhere: wait for its end'))
      })
      // of what Kafka itself wrote, such as the end of a transaction, no message comes: the batch's end tells
      consumer.on('consumer.end_batch_process', ({ payload }) => {
        if (payload.partition === PARTITION && BigInt(payload.lastOffset) >= end - 1n) finish()
      })
      const eachMessage = async ({ partition, message }: { partition: number; message: KafkaMessage }) => {
        const offset = BigInt(message.offset)
        if (isDone || partition !== PARTITION || offset < start || offset >= end) return
        await onLetter(asLetter(message), commit(offset + 1n)).then((goesOn) => goesOn || finish(), finish)
      }
      consumer.run({ autoCommit: false, eachMessage }).catch(finish)
      consumer.seek({ topic, partition: PARTITION, offset: String(start) })
    })
    return start
  } finally {
    await consumer.disconnect()
    if (!isNamed) await admin.deleteGroups([groupId]).catch(() => {})
    await admin.disconnect()
  }
}

const partitionOf = <T extends { partition: number }>(partitions: T[]) =>
  partitions.find(({ partition }) => partition === PARTITION)
