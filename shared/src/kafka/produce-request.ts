// The bytes of a Produce request: record batches of format 2, written once into one buffer. kafkajs's own encoder
// allocates some twenty buffers for a record, half of what the bridge's CPU did; a test holds these bytes against its.
import { createRequire } from 'node:module'

const require = createRequire(import.meta.url)
const crc32C = require('kafkajs/src/protocol/recordBatch/crc32C') as (bytes: Buffer) => number

export type KafkaRecord = { key: string | null; value: Buffer | string | null; headers?: Record<string, string> }
/** The records of one partition under their producer id (a 64-bit integer) and the sequence number of the first. */
export type PartitionData = {
  partition: number
  records: KafkaRecord[]
  producerId: bigint
  producerEpoch: number
  firstSequence: number
}
export type TopicData = { topic: string; partitions: PartitionData[] }

let out = Buffer.allocUnsafe(1 << 20)
let end = 0

/** Makes room for `bytes` more. */
function reserve(bytes: number): void {
  if (end + bytes <= out.length) return
  const larger = Buffer.allocUnsafe(Math.max(2 * out.length, end + bytes))
  out.copy(larger, 0, 0, end)
  out = larger
}

function writeVarInt(value: number): void {
  let left = ((value << 1) ^ (value >> 31)) >>> 0 // zigzag
  while (left > 0x7f) {
    out[end++] = (left & 0x7f) | 0x80
    left >>>= 7
  }
  out[end++] = left
}

const sizeOfVarInt = (value: number): number => {
  const left = ((value << 1) ^ (value >> 31)) >>> 0
  return left < 0x80 ? 1 : left < 0x4000 ? 2 : left < 0x200000 ? 3 : left < 0x10000000 ? 4 : 5
}

type Bytes = Buffer | string | null | undefined
const lengthOf = (bytes: Bytes): number => (bytes == null ? -1 : Buffer.byteLength(bytes))
const sizeOf = (length: number): number => sizeOfVarInt(length) + Math.max(length, 0)

function writeBytes(bytes: Bytes, length: number): void {
  writeVarInt(length)
  if (bytes == null) return
  if (typeof bytes === 'string') out.write(bytes, end, length, 'utf8')
  else bytes.copy(out, end)
  end += length
}

type Header = { name: string; nameLength: number; text: string; length: number }
const NO_HEADERS: Header[] = []
const headersOf = (headers: Record<string, string>): Header[] =>
  Object.entries(headers).map(([name, text]) => ({
    name,
    nameLength: Buffer.byteLength(name),
    text,
    length: Buffer.byteLength(text),
  }))

/** Record v0 of batch format 2 (https://kafka.apache.org/documentation/#record). */
function writeRecord({ key, value, headers }: KafkaRecord, offsetDelta: number): void {
  const keyLength = lengthOf(key)
  const valueLength = lengthOf(value)
  const pairs = headers === undefined ? NO_HEADERS : headersOf(headers)
  let size = 2 + sizeOfVarInt(offsetDelta) + sizeOf(keyLength) + sizeOf(valueLength) // 2: attributes, timestamp delta
  size += sizeOfVarInt(pairs.length)
  for (const { nameLength, length } of pairs) size += sizeOf(nameLength) + sizeOf(length)
  reserve(size + 5)
  writeVarInt(size)
  out[end++] = 0 // attributes
  writeVarInt(0) // timestamp delta: all records of a batch are of one time
  writeVarInt(offsetDelta)
  writeBytes(key, keyLength)
  writeBytes(value, valueLength)
  writeVarInt(pairs.length)
  for (const { name, nameLength, text, length } of pairs) {
    writeBytes(name, nameLength)
    writeBytes(text, length)
  }
}

/** RecordBatch, magic 2 (https://kafka.apache.org/documentation/#recordbatch), with its length before it. */
function writeBatch({ records, producerId, producerEpoch, firstSequence }: PartitionData, nowMs: bigint): void {
  reserve(65)
  const start = end
  out.writeBigInt64BE(0n, start + 4) // base offset
  out.writeInt32BE(0, start + 16) // leader epoch
  out[start + 20] = 2 // magic
  out.writeInt16BE(0, start + 25) // attributes
  out.writeInt32BE(records.length - 1, start + 27)
  out.writeBigInt64BE(nowMs, start + 31)
  out.writeBigInt64BE(nowMs, start + 39)
  out.writeBigInt64BE(producerId, start + 47)
  out.writeInt16BE(producerEpoch, start + 55)
  out.writeInt32BE(firstSequence, start + 57)
  out.writeInt32BE(records.length, start + 61)
  end += 65
  records.forEach(writeRecord)
  out.writeInt32BE(end - start - 4, start)
  out.writeInt32BE(end - start - 16, start + 12)
  out.writeUInt32BE(crc32C(out.subarray(start + 25, end)), start + 21)
}

function writeString(text: string): void {
  const length = Buffer.byteLength(text)
  reserve(2 + length)
  end = out.writeInt16BE(length, end)
  end += out.write(text, end, length, 'utf8')
}

function writeInt32(value: number): void {
  reserve(4)
  end = out.writeInt32BE(value, end)
}

/**
 * The body of a Produce request of version 3 and above, without transaction and compression.
 * @param timeoutMs how long the leader may wait for its followers
 */
export function encodeProduce(acks: number, timeoutMs: number, topics: TopicData[]): Buffer {
  const nowMs = BigInt(Date.now())
  end = 0
  reserve(8)
  end = out.writeInt16BE(-1, end) // no transactional id
  end = out.writeInt16BE(acks, end)
  writeInt32(timeoutMs)
  writeInt32(topics.length)
  for (const { topic, partitions } of topics) {
    writeString(topic)
    writeInt32(partitions.length)
    for (const data of partitions) {
      writeInt32(data.partition)
      writeBatch(data, nowMs)
    }
  }
  return Buffer.from(out.subarray(0, end))
}
