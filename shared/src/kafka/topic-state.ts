// What the cluster says of a topic at this moment: which topic it is, who leads its partitions, where they begin and end;
// and what that means for whoever read it before.
import { createRequire } from 'node:module'
import { errorOf, type KafkaConnections, type KafkaError, type PartitionMetadata } from './connections.js'

const Encoder = createRequire(import.meta.url)('kafkajs/src/protocol/encoder') as new () => {
  buf: Buffer
  offset: number
}

const EARLIEST = '-2'
const LATEST = '-1'

/** `id` is another one when the topic is created again under its name; null where the broker does not tell it. */
export type Topic = { id: string | null; partitions: PartitionMetadata[] }
/** The offsets of the first record that is kept and of the next one that comes. */
export type Bounds = { low: number; high: number }

/** @throws when Kafka is away, or the topic is missing or may not be seen */
export async function findTopic(connections: KafkaConnections, topic: string): Promise<Topic> {
  const { topics } = await connections.metadata([topic])
  const partitions = topics.get(topic)
  if (!partitions) throw new Error(`Kafka says nothing of the topic ${topic}`)
  if (partitions instanceof Error) throw partitions
  return { id: await requestTopicId(connections, topic), partitions }
}

export const isMissing = (error: unknown): boolean => (error as KafkaError).type === 'UNKNOWN_TOPIC_OR_PARTITION'

export const leadersOf = ({ partitions }: Topic): Map<number, number | null> =>
  new Map(partitions.map(({ partition, leader }) => [partition, leader]))

/** The partitions that each broker leads. */
export function partitionsByLeader({ partitions }: Topic): Map<number, number[]> {
  const byLeader = new Map<number, number[]>()
  for (const { partition, leader } of partitions)
    if (leader !== null) byLeader.set(leader, [...(byLeader.get(leader) ?? []), partition])
  return byLeader
}

/** Asks every leader about its partitions at once; those of brokers that do not answer are missing. */
async function askLeaders<T>(
  state: Topic,
  ask: (leader: number, partitions: number[]) => Promise<Map<number, T>>,
): Promise<[partition: number, answer: T][]> {
  const asked = [...partitionsByLeader(state)].map(([leader, partitions]) => ask(leader, partitions))
  const results = await Promise.allSettled(asked)
  return results.flatMap((result) => (result.status === 'fulfilled' ? [...result.value] : []))
}

/** Where the partitions begin and end whose broker says so. */
export async function boundsOfTopic(
  connections: KafkaConnections,
  topic: string,
  state: Topic,
): Promise<Map<number, Bounds>> {
  const found = await askLeaders(state, (leader, partitions) => boundsOf(connections, leader, topic, partitions))
  return new Map(found.flatMap(([partition, bounds]) => (bounds instanceof Error ? [] : [[partition, bounds]])))
}

type Listed = { partition: number; errorCode: number; offset: string; timestamp: string }

/** The first offset at or after a time in milliseconds, -1 where there is none; or that of EARLIEST or LATEST. */
async function listOffsets(
  connections: KafkaConnections,
  leader: number,
  topic: string,
  timestamps: [partition: number, timestamp: string][],
): Promise<Map<number, Listed>> {
  const topics = [{ topic, partitions: timestamps.map(([partition, timestamp]) => ({ partition, timestamp })) }]
  const response = await connections.ask<{ responses: { partitions: Listed[] }[] }>(leader, 'ListOffsets', { topics })
  return new Map(response.responses.flatMap((one) => one.partitions.map((listed) => [listed.partition, listed])))
}

const at = (partitions: number[], timestamp: string) =>
  partitions.map((partition): [number, string] => [partition, timestamp])

/**
 * The first record of each partition that is not older than a time (Unix, in milliseconds); null where there is none, or
 * its broker does not say.
 * @throws when the broker does not answer
 */
export async function firstSince(
  connections: KafkaConnections,
  leader: number,
  topic: string,
  since: Map<number, number>,
): Promise<Map<number, { offset: number; atMs: number } | null>> {
  const timestamps = [...since].map(([partition, ms]): [number, string] => [partition, String(Math.floor(ms))])
  const listed = await listOffsets(connections, leader, topic, timestamps)
  return new Map(
    [...listed].map(([partition, { errorCode, offset, timestamp }]) => [
      partition,
      errorCode !== 0 || offset === '-1' ? null : { offset: Number(offset), atMs: Number(timestamp) },
    ]),
  )
}

/**
 * The first offset at or after a time, of the partitions whose broker says so; null where no record is that late.
 * @param timeMs Unix time in milliseconds
 */
export async function offsetsAt(
  connections: KafkaConnections,
  topic: string,
  state: Topic,
  timeMs: number,
): Promise<Map<number, number | null>> {
  const found = await askLeaders(state, (leader, partitions) =>
    listOffsets(connections, leader, topic, at(partitions, String(timeMs))),
  )
  return new Map(
    found.flatMap(([partition, { errorCode, offset }]) =>
      errorCode === 0 ? [[partition, Number(offset) < 0 ? null : Number(offset)]] : [],
    ),
  )
}

/**
 * Where partitions begin and end, asked of the broker that leads them; those that it refuses to tell carry the error.
 * @throws when the broker does not answer
 */
export async function boundsOf(
  connections: KafkaConnections,
  leader: number,
  topic: string,
  partitions: number[],
): Promise<Map<number, Bounds | KafkaError>> {
  const list = (timestamp: string) => listOffsets(connections, leader, topic, at(partitions, timestamp))
  const [lows, highs] = [await list(EARLIEST), await list(LATEST)]
  const bounds = new Map<number, Bounds | KafkaError>()
  for (const partition of partitions) {
    const [low, high] = [lows.get(partition), highs.get(partition)]
    if (!low || !high) throw new Error(`Kafka says nothing of ${topic}/${partition}`)
    const error = errorOf(low.errorCode) ?? errorOf(high.errorCode)
    bounds.set(partition, error ?? { low: Number(low.offset), high: Number(high.offset) })
  }
  return bounds
}

/** The offset that was reached in a partition, of which topic; `topicId` is null where nothing tells. */
export type Reached = { offset: number; topicId: string | null }
/** Where to begin reading, and how many records before that are gone for ever. */
export type Start = {
  offset: number
  skipped: number
  reason: 'first' | 'resumed' | 'removed' | 'recreated' | 'shorter'
}

/**
 * Where reading begins, given what was read or committed before. A topic that was created again under its name begins
 * at its beginning, whatever the offset says.
 * @param before null where nothing was read or committed
 */
export function startOf(before: Reached | null, topicId: string | null, { low, high }: Bounds): Start {
  if (before === null) return { offset: low, skipped: 0, reason: 'first' }
  const isOther = before.topicId !== null && topicId !== null && before.topicId !== topicId
  if (isOther) return { offset: low, skipped: 0, reason: 'recreated' }
  if (before.offset > high) return { offset: low, skipped: 0, reason: 'shorter' }
  if (before.offset < low) return { offset: low, skipped: low - before.offset, reason: 'removed' }
  return { offset: before.offset, skipped: 0, reason: 'resumed' }
}

/** Messages of each partition that are not stored; removed ones do not count. */
export function lagsOf(bounds: Map<number, Bounds>, committed: Map<number, Reached>, topicId: string | null) {
  return new Map(
    [...bounds].map(([partition, bound]) => [
      partition,
      bound.high - startOf(committed.get(partition) ?? null, topicId, bound).offset,
    ]),
  )
}

// Metadata of version 10 tells a topic's id; kafkajs knows versions up to 6, so that its bytes are written and read here
// (https://kafka.apache.org/protocol.html#The_Messages_Metadata). Strings and arrays are "compact": their length plus
// one as a variable-length number; a 0 stands where tagged fields could be.
const VERSION_WITH_IDS = 10
const UUID_BYTES = 16

async function requestTopicId(connections: KafkaConnections, topic: string): Promise<string | null> {
  const response = await connections.ask<{ id?: string | null }>(
    null,
    'Metadata',
    { topics: [topic] },
    (made, newest) => {
      if (newest < VERSION_WITH_IDS) return
      made.request.apiVersion = VERSION_WITH_IDS
      made.request.encode = async () => {
        const encoder = new Encoder()
        encoder.buf = encodeIdRequest(topic)
        encoder.offset = encoder.buf.length
        return encoder
      }
      made.response = { decode: async (bytes) => ({ id: decodeId(bytes) }), parse: async (decoded) => decoded }
    },
  )
  return response.id ?? null
}

const varInt = (value: number): number[] => (value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...varInt(value >>> 7)])

function encodeIdRequest(topic: string): Buffer {
  const name = Buffer.from(topic)
  const noFields = 0 // of the header, which ends here
  return Buffer.concat([
    Buffer.from([noFields, 2]), // one topic
    Buffer.alloc(UUID_BYTES),
    Buffer.from(varInt(name.length + 1)),
    name,
    Buffer.from([0, 0, 0, 0, 0]), // no fields; do not create; no operations, twice; no fields
  ])
}

/** The id in base64; null when the topic is unknown. */
function decodeId(bytes: Buffer): string | null {
  let at = 1 // behind the header's tagged fields
  const number = () => {
    let value = 0
    for (let shift = 0; ; shift += 7) {
      const byte = bytes.readUInt8(at++)
      value |= (byte & 0x7f) << shift
      if (byte < 0x80) return value
    }
  }
  const skipString = () => {
    const length = number() - 1 // -1 for null
    at += Math.max(length, 0)
  }
  const skipFields = () => {
    for (let count = number(); count > 0; count--) {
      number() // its tag
      const length = number()
      at += length
    }
  }
  at += 4 // throttle time
  for (let brokers = number() - 1; brokers > 0; brokers--) {
    at += 4
    skipString() // host
    at += 4
    skipString() // rack
    skipFields()
  }
  skipString() // cluster id
  at += 4 // controller
  if (number() - 1 < 1) return null
  const errorCode = bytes.readInt16BE(at)
  at += 2
  skipString() // name
  return errorCode === 0 ? bytes.toString('base64', at, at + UUID_BYTES) : null
}
