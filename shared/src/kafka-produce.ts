// Kafkajs's way from messages to the bytes of a Produce request, replaced by one that is linear and writes each byte
// once. Its own copies a partition's messages for each message (https://github.com/tulios/kafkajs/issues/1391), hashes
// keys with 64-bit objects and allocates some twenty buffers for a record: half of what the bridge's CPU did.
//
// Imported before kafkajs itself. The tests hold these three against kafkajs's own, byte for byte; what they do not
// know (compression, transactions) goes the original way.
import { createRequire } from 'node:module'
import type { IHeaders, Message } from 'kafkajs'

const require = createRequire(import.meta.url)
const path = (module: string) => require.resolve(`kafkajs/src/${module}`)

/** kafkajs's own encoder, of which only the finished buffer is of use here. */
type Encoder = { buf: Buffer; offset: number }
type PartitionData = { partition: number; messages: Message[]; firstSequence: number }
type ProduceArguments = {
  acks: number
  timeout: number
  transactionalId?: string | null
  /** A 64-bit integer, also as text. */
  producerId: { toString(): string }
  producerEpoch: number
  compression?: number
  topicData: { topic: string; partitions: PartitionData[] }[]
}
type ProduceRequest = { encode(): Promise<Encoder> }

const Encoder = require(path('protocol/encoder')) as new () => Encoder
const crc32C = require(path('protocol/recordBatch/crc32C')) as (bytes: Buffer) => number

/** Java's 32-bit murmur2. */
function murmur2(key: Buffer): number {
  const M = 0x5bd1e995
  const length = key.length
  let h = 0x9747b28c ^ length
  let at = 0
  for (; at + 4 <= length; at += 4) {
    let k = Math.imul(key.readInt32LE(at), M)
    k = Math.imul(k ^ (k >>> 24), M)
    h = Math.imul(h, M) ^ k
  }
  const rest = length - at
  if (rest === 3) h ^= (key[at + 2] as number) << 16
  if (rest >= 2) h ^= (key[at + 1] as number) << 8
  if (rest >= 1) h = Math.imul(h ^ (key[at] as number), M)
  h = Math.imul(h ^ (h >>> 13), M)
  return h ^ (h >>> 15)
}

/** The partition of a key, as Java's default partitioner chooses it. */
export const partitionOf = (key: Buffer, partitions: number): number => (murmur2(key) & 0x7fffffff) % partitions

/** The messages of each partition, in order. */
export function groupByPartition<Metadata extends unknown[], M>(args: {
  topic: string
  partitionMetadata: Metadata
  messages: M[]
  partitioner: (args: { topic: string; partitionMetadata: Metadata; message: M }) => number
}): Record<number, M[]> {
  const { topic, partitionMetadata, messages, partitioner } = args
  const groups: Record<number, M[]> = {}
  if (partitionMetadata.length === 0) return groups
  for (const message of messages) {
    const partition = partitioner({ topic, partitionMetadata, message })
    const group = groups[partition]
    if (group) group.push(message)
    else groups[partition] = [message]
  }
  return groups
}

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

type Pair = { name: string; nameLength: number; one: Bytes; length: number }
const NO_PAIRS: Pair[] = []
const pairsOf = (headers: IHeaders): Pair[] =>
  Object.entries(headers).flatMap(([name, of]) =>
    (Array.isArray(of) ? of : [of]).map((one) => ({
      name,
      nameLength: Buffer.byteLength(name),
      one,
      length: lengthOf(one),
    })),
  )

/** Record v0 of batch format 2 (https://kafka.apache.org/documentation/#record). */
function writeRecord({ key, value, headers, timestamp }: Message, offsetDelta: number, firstMs: number): void {
  const timestampDelta = timestamp === undefined ? 0 : Number(timestamp) - firstMs
  const keyLength = lengthOf(key)
  const valueLength = lengthOf(value)
  const pairs = headers === undefined ? NO_PAIRS : pairsOf(headers)
  let size = 1 + sizeOfVarInt(timestampDelta) + sizeOfVarInt(offsetDelta) + sizeOf(keyLength) + sizeOf(valueLength)
  size += sizeOfVarInt(pairs.length)
  for (const { nameLength, length } of pairs) size += sizeOf(nameLength) + sizeOf(length)
  reserve(size + 5)
  writeVarInt(size)
  out[end++] = 0 // attributes
  writeVarInt(timestampDelta)
  writeVarInt(offsetDelta)
  writeBytes(key, keyLength)
  writeBytes(value, valueLength)
  writeVarInt(pairs.length)
  for (const { name, nameLength, one, length } of pairs) {
    writeBytes(name, nameLength)
    writeBytes(one, length)
  }
}

/** RecordBatch, magic 2 (https://kafka.apache.org/documentation/#recordbatch), with its length before it. */
function writeBatch({ messages, firstSequence }: PartitionData, producerId: bigint, producerEpoch: number): void {
  let [firstMs, maxMs] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]
  for (const { timestamp } of messages) {
    if (timestamp === undefined) continue
    firstMs = Math.min(firstMs, Number(timestamp))
    maxMs = Math.max(maxMs, Number(timestamp))
  }
  if (firstMs === Number.POSITIVE_INFINITY) firstMs = maxMs = Date.now()
  reserve(65)
  const start = end
  out.writeBigInt64BE(0n, start + 4) // base offset
  out.writeInt32BE(0, start + 16) // leader epoch
  out[start + 20] = 2 // magic
  out.writeInt16BE(0, start + 25) // attributes
  out.writeInt32BE(messages.length - 1, start + 27)
  out.writeBigInt64BE(BigInt(firstMs), start + 31)
  out.writeBigInt64BE(BigInt(maxMs), start + 39)
  out.writeBigInt64BE(producerId, start + 47)
  out.writeInt16BE(producerEpoch, start + 55)
  out.writeInt32BE(firstSequence, start + 57)
  out.writeInt32BE(messages.length, start + 61)
  end += 65
  messages.forEach((message, index) => {
    writeRecord(message, index, firstMs)
  })
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

/** The body of a Produce request of version 3 and above, without transaction and compression. */
export function encodeProduce({ acks, timeout, producerId, producerEpoch, topicData }: ProduceArguments): Buffer {
  end = 0
  reserve(8)
  end = out.writeInt16BE(-1, end) // no transactional id
  end = out.writeInt16BE(acks, end)
  writeInt32(timeout)
  writeInt32(topicData.length)
  for (const { topic, partitions } of topicData) {
    writeString(topic)
    writeInt32(partitions.length)
    for (const data of partitions) {
      writeInt32(data.partition)
      writeBatch(data, BigInt(producerId.toString()), producerEpoch)
    }
  }
  return Buffer.from(out.subarray(0, end))
}

function replace<Exports>(module: string, make: (original: Exports) => Exports): void {
  const file = path(module)
  const original = require(file) as Exports
  const cached = require.cache[file]
  if (cached) cached.exports = make(original)
}

replace('producer/groupMessagesPerPartition', () => groupByPartition)
replace<(args: ProduceArguments) => ProduceRequest>('protocol/requests/produce/v3/request', (original) => (args) => {
  const request = original(args)
  if (args.compression || args.transactionalId) return request
  return {
    ...request,
    async encode() {
      const encoder = new Encoder()
      encoder.buf = encodeProduce(args)
      encoder.offset = encoder.buf.length
      return encoder
    },
  }
})
