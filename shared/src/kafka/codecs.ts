// Decompression of record batches, in every codec that Kafka knows. What comes is another producer's: garbage throws,
// and a batch that would grow past the limit throws before its memory is taken.
import zlib from 'node:zlib'
import { Decompress } from 'fzstd'

/** More than any sensible batch: brokers take 1 MB of compressed records by default. */
export const MAX_BATCH_BYTES = 64 * 1024 * 1024

type Decompressor = (bytes: Buffer, maxBytes: number) => Buffer

const gunzip: Decompressor = (bytes, maxOutputLength) => zlib.gunzipSync(bytes, { maxOutputLength })

// Java's clients put snappy into blocks behind a header (xerial's framing), librdkafka and others do not
const XERIAL_MAGIC = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0])
const XERIAL_HEADER_BYTES = 16

const unsnappy: Decompressor = (bytes, maxBytes) => {
  if (!bytes.subarray(0, XERIAL_MAGIC.length).equals(XERIAL_MAGIC)) return unsnappyBlock(bytes, maxBytes)
  const blocks: Buffer[] = []
  let total = 0
  for (let at = XERIAL_HEADER_BYTES; at < bytes.length; ) {
    const length = bytes.readInt32BE(at)
    at += 4
    if (length < 0 || at + length > bytes.length) throw new Error('a snappy block ends beyond the batch')
    const block = unsnappyBlock(bytes.subarray(at, at + length), maxBytes - total)
    blocks.push(block)
    total += block.length
    at += length
  }
  return Buffer.concat(blocks, total)
}

/**
 * Literals and copies of what was written before. snappyjs does not end on some bytes that are no snappy.
 * (https://github.com/google/snappy/blob/main/format_description.txt)
 */
function unsnappyBlock(block: Buffer, maxBytes: number): Buffer {
  let at = 0
  let size = 0
  for (let factor = 1; ; factor *= 128) {
    const byte = block.readUInt8(at++)
    size += (byte & 0x7f) * factor
    if (size > maxBytes) throw new Error(`a snappy block holds more than ${maxBytes} bytes`)
    if (byte < 0x80) break
  }
  const out = Buffer.allocUnsafe(size)
  let end = 0
  while (at < block.length) {
    const tag = block.readUInt8(at++)
    const kind = tag & 3
    if (kind === 0) {
      const extra = Math.max((tag >> 2) - 59, 0) // bytes of the length
      const length = 1 + (extra === 0 ? tag >> 2 : block.readUIntLE(at, extra))
      at += extra
      if (at + length > block.length || end + length > size) throw new Error('snappy literals beyond the block')
      block.copy(out, end, at, at + length)
      at += length
      end += length
      continue
    }
    const length = kind === 1 ? 4 + ((tag >> 2) & 7) : 1 + (tag >> 2)
    const bytes = kind === 3 ? 4 : kind
    const distance = block.readUIntLE(at, bytes) + (kind === 1 ? (tag >> 5) * 256 : 0)
    at += bytes
    if (distance === 0 || distance > end || end + length > size) throw new Error('a snappy copy beyond the block')
    copyWithin(out, end, distance, length)
    end += length
  }
  if (end !== size) throw new Error('a snappy block is cut off')
  return out
}

/** Repeats `length` bytes from `distance` before `end`, also those that it writes meanwhile. */
function copyWithin(out: Buffer, end: number, distance: number, length: number): void {
  if (distance >= length) out.copyWithin(end, end - distance, end - distance + length)
  else for (let i = 0; i < length; i++) out[end + i] = out[end + i - distance] as number
}

// node:zlib knows zstd from Node 22.15 on
type ZstdDecompress = (bytes: Buffer, options: { maxOutputLength: number }) => Buffer
const { zstdDecompressSync } = zlib as { zstdDecompressSync?: ZstdDecompress }
const ZSTD_MAGIC = 0xfd2fb528

/** The memory that a zstd frame asks for: its window, or its content where that is one segment. */
function zstdWindow(bytes: Buffer): number {
  if (bytes.readUInt32LE(0) !== ZSTD_MAGIC) throw new Error('not a zstd frame')
  const descriptor = bytes.readUInt8(4)
  const isSingleSegment = (descriptor & 0x20) !== 0
  if (!isSingleSegment) {
    const window = bytes.readUInt8(5)
    const base = 2 ** (10 + (window >> 3))
    return base + (base / 8) * (window & 7)
  }
  const at = 5 + ([0, 1, 2, 4][descriptor & 3] as number) // behind the dictionary's id
  const sizeFlag = descriptor >> 6
  if (sizeFlag === 0) return bytes.readUInt8(at)
  if (sizeFlag === 1) return bytes.readUInt16LE(at) + 256
  return sizeFlag === 2 ? bytes.readUInt32LE(at) : Number(bytes.readBigUInt64LE(at))
}

/** Without node:zlib's zstd. Exported for its test, which also runs where node:zlib has it. */
export const unzstdInJs: Decompressor = (bytes, maxBytes) => {
  if (zstdWindow(bytes) > maxBytes) throw new Error(`a zstd batch needs more than ${maxBytes} bytes`)
  const chunks: Uint8Array[] = []
  let total = 0
  let isFinished = false
  const stream = new Decompress((chunk, isFinal) => {
    total += chunk.length
    if (total > maxBytes) throw new Error(`a zstd batch holds more than ${maxBytes} bytes`)
    chunks.push(chunk.slice()) // the library uses its buffer again
    isFinished ||= isFinal === true
  })
  stream.push(bytes, true)
  if (!isFinished) throw new Error('a zstd batch is cut off')
  return Buffer.concat(chunks, total)
}
const unzstd: Decompressor = zstdDecompressSync
  ? (bytes, maxOutputLength) => zstdDecompressSync(bytes, { maxOutputLength })
  : unzstdInJs

const LZ4_MAGIC = 0x184d2204
const LZ4_BLOCK_BYTES = [0, 0, 0, 0, 65_536, 262_144, 1_048_576, 4_194_304]
const LZ4_UNCOMPRESSED = 0x80000000
const LZ4_MIN_MATCH = 4

/** LZ4's frame format, with what it says of itself checked against what there is; checksums are left to Kafka's own. */
const unlz4: Decompressor = (bytes, maxBytes) => {
  if (bytes.readUInt32LE(0) !== LZ4_MAGIC) throw new Error('not an LZ4 frame')
  const flags = bytes.readUInt8(4)
  if (flags >> 6 !== 1) throw new Error('unknown version of the LZ4 frame')
  const blockBytes = LZ4_BLOCK_BYTES[(bytes.readUInt8(5) >> 4) & 7] as number
  const hasBlockChecksums = (flags & 0x10) !== 0
  let at = 7 + (flags & 0x08 ? 8 : 0) + (flags & 0x01 ? 4 : 0) // content size, dictionary id, header's checksum
  let out = Buffer.allocUnsafe(Math.min(blockBytes, maxBytes))
  let end = 0
  for (;;) {
    const header = bytes.readUInt32LE(at)
    at += 4
    if (header === 0) return out.subarray(0, end)
    const length = header % LZ4_UNCOMPRESSED
    if (at + length > bytes.length) throw new Error('an LZ4 block ends beyond the batch')
    const limit = Math.min(end + blockBytes, maxBytes)
    if (out.length < limit)
      out = Buffer.concat([out.subarray(0, end)], Math.min(Math.max(2 * out.length, limit), maxBytes))
    const block = bytes.subarray(at, at + length)
    if (header >= LZ4_UNCOMPRESSED) {
      if (end + length > limit) throw new Error('an LZ4 block holds more than it may')
      end += block.copy(out, end)
    } else end = unlz4Block(block, out, end, limit)
    at += length + (hasBlockChecksums ? 4 : 0)
  }
}

/** Sequences of literals and of matches in what was written before. @returns where it ended in `out` */
function unlz4Block(block: Buffer, out: Buffer, start: number, limit: number): number {
  let at = 0
  let end = start
  const lengthFrom = (nibble: number): number => {
    let length = nibble
    if (nibble < 15) return length
    for (let more = 255; more === 255; ) {
      more = block.readUInt8(at++)
      length += more
    }
    return length
  }
  for (;;) {
    const token = block.readUInt8(at++)
    const literals = lengthFrom(token >> 4)
    if (at + literals > block.length || end + literals > limit) throw new Error('LZ4 literals beyond the block')
    block.copy(out, end, at, at + literals)
    at += literals
    end += literals
    if (at === block.length) return end
    const distance = block.readUInt16LE(at)
    at += 2
    const match = lengthFrom(token & 15) + LZ4_MIN_MATCH
    if (distance === 0 || distance > end || end + match > limit) throw new Error('an LZ4 match beyond the block')
    copyWithin(out, end, distance, match)
    end += match
  }
}

const CODECS: Record<number, Decompressor> = { 1: gunzip, 2: unsnappy, 3: unlz4, 4: unzstd }

/**
 * The bytes of a batch's records.
 * @param codec as in the batch's attributes: 1 gzip, 2 snappy, 3 LZ4, 4 zstd
 * @throws for an unknown codec, for garbage, and for more than `maxBytes`
 */
export function decompress(codec: number, bytes: Buffer, maxBytes = MAX_BATCH_BYTES): Buffer {
  const decompressor = CODECS[codec]
  if (!decompressor) throw new Error(`unknown compression ${codec}`)
  return decompressor(bytes, maxBytes)
}
