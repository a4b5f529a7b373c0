import { createRequire } from 'node:module'
import zlib from 'node:zlib'
import { expect, test } from 'vitest'
import { decompress, unzstdInJs } from './codecs.js'

const snappy = createRequire(import.meta.url)('snappyjs') as { compress(bytes: Buffer): Buffer }
const [GZIP, SNAPPY, LZ4, ZSTD] = [1, 2, 3, 4]
const text = Buffer.from('how now brown cow, '.repeat(5000))
const MIB = 2 ** 20

const int32BE = (value: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(value)
  return bytes
}
const int32LE = (value: number) => int32BE(value).reverse()

test('snappy as librdkafka sends it, and in the blocks of Java', () => {
  expect(decompress(SNAPPY, snappy.compress(text))).toEqual(text)
  const [first, second] = [snappy.compress(text), snappy.compress(Buffer.from('!'))]
  const header = Buffer.from('82534e415050590000000001 00000001'.replace(' ', ''), 'hex')
  const framed = Buffer.concat([header, int32BE(first.length), first, int32BE(second.length), second])
  expect(decompress(SNAPPY, framed)).toEqual(Buffer.concat([text, Buffer.from('!')]))
  expect(() => decompress(SNAPPY, framed.subarray(0, -1))).toThrow('a snappy block ends beyond the batch')
})

const frame = (...blocks: Buffer[]) =>
  Buffer.concat([int32LE(0x184d2204), Buffer.from([0x60, 0x40, 0]), ...blocks, int32LE(0)])
/** One literal and a match that repeats it, `more` times 255 bytes and some. */
const run = (more: number) => {
  const block = Buffer.concat([Buffer.from([0x1f, 0x61, 1, 0]), Buffer.alloc(more, 255), Buffer.from([0, 0])])
  return Buffer.concat([int32LE(block.length), block])
}

test('LZ4: overlapping matches, blocks that are not compressed, and what must not be believed', () => {
  expect(String(decompress(LZ4, frame(run(1))))).toBe('a'.repeat(1 + 15 + 255 + 4))
  const plain = Buffer.from('plain')
  expect(String(decompress(LZ4, frame(Buffer.concat([int32LE(plain.length | 0x80000000), plain]))))).toBe('plain')
  expect(() => decompress(LZ4, frame(run(1000)))).toThrow('beyond the block') // more than its 64 KB
  const tooFar = Buffer.from([0x10, 0x61, 2, 0, 0])
  expect(() => decompress(LZ4, frame(Buffer.concat([int32LE(tooFar.length), tooFar])))).toThrow('beyond the block')
})

test('no batch takes more memory than the limit', () => {
  const zeros = Buffer.alloc(4 * MIB)
  const rle = Buffer.from([((0x20000 << 3) & 0xff) | 2, (0x20000 >> 5) & 0xff, (0x20000 >> 13) & 0xff, 0x61])
  const last = Buffer.from([1, 0, 0])
  const zstdOf = (descriptor: number[], blocks: number) =>
    Buffer.concat([int32LE(0xfd2fb528 | 0), Buffer.from(descriptor), ...Array(blocks).fill(rle), last])
  const bombs: [number, Buffer][] = [
    [GZIP, zlib.gzipSync(zeros)],
    [SNAPPY, snappy.compress(zeros)],
    [SNAPPY, Buffer.from('ffffffff0f', 'hex')],
    [LZ4, frame(...Array(100).fill(run(200)))],
    [ZSTD, zstdOf([0x00, 0x38], 100)], // a window of 128 KB, blocks of 128 KB out of four bytes
    [ZSTD, zstdOf([0x00, 0xa8], 0)], // a window of 2 GB
    [ZSTD, zstdOf([0xa0, 0, 0, 0, 0x40], 0)], // one segment of 1 GB
  ]
  for (const [codec, bytes] of bombs) {
    expect(() => decompress(codec, bytes, MIB)).toThrow()
    if (codec === ZSTD) expect(() => unzstdInJs(bytes, MIB)).toThrow(/more than/)
  }
})

test.runIf('zstdCompressSync' in zlib)('zstd without node:zlib does the same', () => {
  const { zstdCompressSync } = zlib as unknown as { zstdCompressSync(bytes: Buffer): Buffer }
  expect(unzstdInJs(zstdCompressSync(text), MIB)).toEqual(text)
  expect(decompress(ZSTD, zstdCompressSync(text))).toEqual(text)
})

test('an unknown codec throws', () => {
  expect(() => decompress(5, text)).toThrow('unknown compression 5')
})
