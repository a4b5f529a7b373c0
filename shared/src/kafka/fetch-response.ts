// The bytes of a Fetch response to records: record batches of format 2, compressed or not, transactions included.
// A batch that cannot be read is one record with its raw bytes as value, so that nothing behind it is held up.
// (https://kafka.apache.org/documentation/#messageformat)
import { createRequire } from 'node:module'
import { decompress } from './codecs.js'

const require = createRequire(import.meta.url)
const crc32C = require('kafkajs/src/protocol/recordBatch/crc32C') as (bytes: Buffer) => number

/** A record as it was read; key and value are views into the response. `offset` is decimal text. */
export type FetchedRecord = { key: Buffer | null; value: Buffer | null; offset: string; details?: RecordDetails }
/** What is decoded only where it is asked for. */
export type RecordDetails = { timestampMs: number; headers: Map<string, Buffer> }
export type FetchedPartition = {
  topic: string
  partition: number
  /** As in the protocol; 0 is success. */
  errorCode: number
  /** The first offset that the partition still holds; -1 where the broker does not say. */
  logStart: number
  /** The offset behind the last record that may be read. */
  end: number
  /** Where to read on; null when there was nothing. */
  next: number | null
  records: FetchedRecord[]
  /** What could not be read, in words. */
  unreadable: string[]
}
/** `throttleMs` is how long a quota makes us wait from now on. */
export type FetchResponse = { throttleMs: number; errorCode: number; partitions: FetchedPartition[] }

type Aborted = { producerId: bigint; firstOffset: bigint }

const BATCH_HEADER_BYTES = 61
const LENGTH_END = 12 // base offset and length come before what the length counts
const CRC_AT = 17
const CRC_END = 21 // what follows is what it is of
const COMPRESSION = 0x07
const TRANSACTIONAL = 0x10
const CONTROL = 0x20
const LOG_APPEND_TIME = 0x08

/** @param version 4 to 11 of the protocol */
export function decodeFetchResponse(bytes: Buffer, version: number, detailed = false): FetchResponse {
  let at = 0
  const int32 = () => {
    at += 4
    return bytes.readInt32BE(at - 4)
  }
  const int16 = () => {
    at += 2
    return bytes.readInt16BE(at - 2)
  }
  const int64 = () => {
    at += 8
    return bytes.readBigInt64BE(at - 8)
  }
  const response: FetchResponse = { throttleMs: int32(), errorCode: 0, partitions: [] }
  if (version >= 7) {
    response.errorCode = int16()
    int32() // session
  }
  for (let topics = int32(); topics > 0; topics--) {
    const nameBytes = int16()
    if (nameBytes < 0) throw new Error('a topic without a name')
    const topic = bytes.toString('utf8', at, at + nameBytes)
    at += nameBytes
    for (let partitions = int32(); partitions > 0; partitions--) {
      const partition = int32()
      const errorCode = int16()
      const end = Number(int64()) // the high watermark
      int64() // last stable offset
      const logStart = version >= 5 ? Number(int64()) : -1
      const aborted: Aborted[] = []
      for (let count = int32(); count > 0; count--) aborted.push({ producerId: int64(), firstOffset: int64() })
      if (version >= 11) int32() // preferred replica
      const length = Math.max(int32(), 0)
      const records = decodeRecords(bytes.subarray(at, at + length), aborted, detailed)
      at += length
      response.partitions.push({ topic, partition, errorCode, logStart, end, ...records })
    }
  }
  return response
}

/** The records of one partition; the last batch may be cut off, and is then left for the next fetch. */
export function decodeRecords(
  bytes: Buffer,
  aborted: Aborted[] = [],
  detailed = false,
): { records: FetchedRecord[]; next: number | null; unreadable: string[] } {
  const records: FetchedRecord[] = []
  const unreadable: string[] = []
  const transactions = createTransactions(aborted)
  let next: number | null = null
  for (let at = 0; at + LENGTH_END <= bytes.length; ) {
    const end = at + LENGTH_END + bytes.readInt32BE(at + 8)
    if (end > bytes.length) break
    const batch = bytes.subarray(at, end)
    const base = Number(batch.readBigInt64BE(0))
    const isOfFormat2 = batch.length >= BATCH_HEADER_BYTES && batch[16] === 2
    next = base + (isOfFormat2 ? batch.readInt32BE(23) : 0) + 1
    const count = records.length
    try {
      if (!isOfFormat2) throw new Error(`message format ${batch[16]}`)
      if (crc32C(batch.subarray(CRC_END)) !== batch.readUInt32BE(CRC_AT))
        throw new Error('a checksum that does not fit')
      if (transactions.isVisible(batch)) decodeBatch(batch, base, records, detailed)
    } catch (error) {
      records.length = count
      records.push({ key: null, value: batch, offset: String(next - 1) }) // so that it is behind us once it is stored
      unreadable.push((error as Error).message)
    }
    at = end
  }
  return { records, next, unreadable }
}

/** Leaves out control batches and the batches of transactions that were aborted. */
function createTransactions(aborted: Aborted[]) {
  const pending = [...aborted].sort((a, b) => Number(a.firstOffset - b.firstOffset))
  const open = new Set<bigint>()
  return {
    isVisible(batch: Buffer): boolean {
      if (aborted.length === 0) return (batch.readInt16BE(21) & CONTROL) === 0
      const attributes = batch.readInt16BE(21)
      const producerId = batch.readBigInt64BE(43)
      const last = batch.readBigInt64BE(0) + BigInt(batch.readInt32BE(23))
      while (pending[0] && pending[0].firstOffset <= last) open.add((pending.shift() as Aborted).producerId)
      if (attributes & CONTROL) {
        open.delete(producerId) // an end of its transaction, of one kind or the other
        return false
      }
      return !((attributes & TRANSACTIONAL) !== 0 && open.has(producerId))
    },
  }
}

let at = 0 // in the records being read: a closure for each batch would cost more than all else here

function varInt(bytes: Buffer): number {
  let value = 0
  for (let shift = 0; shift < 35; shift += 7) {
    const byte = bytes[at++]
    if (byte === undefined) throw new Error('a record is cut off')
    value |= (byte & 0x7f) << shift
    if (byte < 0x80) return (value >>> 1) ^ -(value & 1)
  }
  throw new Error('a number is too long')
}

function skipVarLong(bytes: Buffer): void {
  for (let count = 0; count < 10; count++) {
    const byte = bytes[at++]
    if (byte === undefined) throw new Error('a record is cut off')
    if (byte < 0x80) return
  }
  throw new Error('a number is too long')
}

function field(bytes: Buffer, end: number): Buffer | null {
  const length = varInt(bytes)
  if (length < 0) return null
  const from = at
  at += length
  if (at > end) throw new Error('a field ends beyond its record')
  return bytes.subarray(from, at)
}

function decodeBatch(batch: Buffer, base: number, into: FetchedRecord[], detailed: boolean): void {
  const codec = batch.readInt16BE(21) & COMPRESSION
  const count = batch.readInt32BE(57)
  const body = batch.subarray(BATCH_HEADER_BYTES)
  const bytes = codec === 0 ? body : decompress(codec, body)
  at = 0
  for (let index = 0; index < count; index++) {
    const length = varInt(bytes)
    const end = at + length
    if (length < 0 || end > bytes.length) throw new Error('a record ends beyond its batch')
    at++ // attributes
    const timeAt = at
    skipVarLong(bytes)
    const offset = base + varInt(bytes)
    const key = field(bytes, end)
    const value = field(bytes, end)
    const record: FetchedRecord = { key, value, offset: String(offset) }
    if (detailed) record.details = { timestampMs: timestampOf(batch, bytes, timeAt), headers: headersOf(bytes, end) }
    into.push(record)
    at = end // behind the headers
  }
}

/** In milliseconds. @param from where the record has its difference to the batch's */
function timestampOf(batch: Buffer, bytes: Buffer, from: number): number {
  if (batch.readInt16BE(21) & LOG_APPEND_TIME) return Number(batch.readBigInt64BE(35))
  let value = 0
  for (let offset = from, scale = 1; ; offset++, scale *= 128) {
    const byte = bytes[offset] as number // the number was skipped before: it ends
    value += (byte & 0x7f) * scale
    if (byte < 0x80) break
  }
  return Number(batch.readBigInt64BE(27)) + (value % 2 === 0 ? value / 2 : -(value + 1) / 2)
}

/** Of equal names the last counts. */
function headersOf(bytes: Buffer, end: number): Map<string, Buffer> {
  const headers = new Map<string, Buffer>()
  for (let count = varInt(bytes); count > 0; count--) {
    const name = field(bytes, end)
    const value = field(bytes, end)
    if (name && value) headers.set(name.toString(), value)
  }
  return headers
}
