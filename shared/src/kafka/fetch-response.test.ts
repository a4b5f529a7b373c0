// fixtures.json holds Fetch responses of version 11 with 30 records that Java's producer compressed.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { decodeFetchResponse, decodeRecords } from './fetch-response.js'
import { encodeProduce } from './produce-request.js'

const crc32C = createRequire(import.meta.url)('kafkajs/src/protocol/recordBatch/crc32C') as (bytes: Buffer) => number
const fixtures = JSON.parse(readFileSync(new URL('fixtures.json', import.meta.url), 'utf8')) as Record<string, string>
const responses = Object.entries(fixtures).map(([codec, text]) => [codec, Buffer.from(text, 'base64')] as const)

/** The checksum is of what is in the batch now. */
function sealed(batch: Buffer): Buffer {
  batch.writeUInt32BE(crc32C(batch.subarray(21)), 17)
  return batch
}
/** A batch as a producer sends it; its records have offsets from `base` on. */
function batchOf(values: string[], base = 0, change: (batch: Buffer) => Buffer = (batch) => batch): Buffer {
  const records = values.map((value) => ({ key: 'k', value }))
  const data = { partition: 0, records, producerId: 7n, producerEpoch: 0, firstSequence: 0 }
  const request = encodeProduce(-1, 0, [{ topic: 't', partitions: [data] }])
  const batch = sealed(change(Buffer.from(request.subarray(2 + 2 + 4 + 4 + 3 + 4 + 4 + 4))))
  batch.writeBigInt64BE(BigInt(base), 0)
  return batch
}
const withAttributes = (attributes: number) => (batch: Buffer) => {
  batch.writeInt16BE(attributes, 21)
  return batch
}
/** The same records compressed with gzip. */
const compressed = (batch: Buffer): Buffer => {
  const whole = Buffer.concat([batch.subarray(0, 61), gzipSync(batch.subarray(61))])
  whole.writeInt32BE(whole.length - 12, 8)
  return sealed(withAttributes(1)(whole))
}
const texts = (bytes: Buffer, aborted?: { producerId: bigint; firstOffset: bigint }[]) =>
  decodeRecords(bytes, aborted).records.map(({ value }) => String(value))

test.each(responses)('what Java compressed with %s is read', (_codec, bytes) => {
  const { partitions } = decodeFetchResponse(bytes, 11)
  const [found] = partitions
  expect(partitions).toHaveLength(1)
  expect(found).toMatchObject({ partition: 0, errorCode: 0, logStart: 0, next: 30, unreadable: [] })
  expect(found?.records.map(({ key, value, offset }) => [String(key), String(value), offset])).toEqual(
    Array.from({ length: 30 }, (_, i) => [`d${i % 3}`, `{"seq":${i},"text":"${'abc'.repeat(i)}"}`, String(i)]),
  )
})

test('timestamps and headers come where they are asked for', () => {
  for (const [, bytes] of responses) {
    const records = decodeFetchResponse(bytes, 11, true).partitions[0]?.records ?? []
    const times = records.map(({ details }) => details?.timestampMs ?? 0)
    expect(times).toHaveLength(30)
    expect(times).toEqual([...times].sort((a, b) => a - b))
    const [first = 0] = times
    expect(new Date(first).getUTCFullYear()).toBe(2026)
    expect(records.every(({ details }) => details?.headers.size === 0)).toBe(true)
  }
  expect(decodeFetchResponse(responses[0]?.[1] as Buffer, 11).partitions[0]?.records[0]).not.toHaveProperty('details')
})

test('offsets are those of the log, also beyond 32 bits; a batch that is cut off waits for the next fetch', () => {
  const base = 2 ** 40
  const bytes = Buffer.concat([batchOf(['a', 'b'], base), batchOf(['c'], base + 2)])
  const whole = decodeRecords(bytes)
  expect(whole.records.map(({ offset }) => Number(offset))).toEqual([base, base + 1, base + 2])
  expect(whole.next).toBe(base + 3)
  expect(decodeRecords(bytes.subarray(0, -1)).next).toBe(base + 2)
  expect(decodeRecords(bytes.subarray(0, 40))).toEqual({ records: [], next: null, unreadable: [] })
})

test('a batch that cannot be read is one record with its bytes, and what is behind it is read', () => {
  const spoilt: [string, (batch: Buffer) => Buffer][] = [
    ['unknown compression 7', withAttributes(7)],
    ['incorrect header check', withAttributes(1)],
    ['not an LZ4 frame', withAttributes(3)],
    [
      'a record ends beyond its batch',
      (batch) => Buffer.concat([batch.subarray(0, 61), Buffer.from([0x7f]), batch.subarray(62)]),
    ],
    ['message format 1', (batch) => Buffer.concat([batch.subarray(0, 16), Buffer.from([1]), batch.subarray(17)])],
  ]
  for (const [problem, spoil] of spoilt) {
    const bad = batchOf(['x', 'y'], 10, spoil)
    const { records, next, unreadable } = decodeRecords(Buffer.concat([batchOf(['a'], 9), bad, batchOf(['b'], 12)]))
    expect(unreadable).toEqual([expect.stringContaining(problem)])
    expect(next).toBe(13)
    const last = problem === 'message format 1' ? '10' : '11' // an old message is one record
    expect(records.map(({ offset }) => offset)).toEqual(['9', last, '12'])
    expect(records[1]).toEqual({ key: null, value: bad, offset: last })
  }
})

test('a batch of which any byte behind its length was changed is not taken for what it was', () => {
  const batch = batchOf(['abc', 'def'], 5)
  for (let at = 16; at < batch.length; at++) {
    const spoilt = Buffer.from(batch)
    spoilt[at] = (spoilt[at] as number) ^ 0x04
    expect(decodeRecords(spoilt).unreadable, `byte ${at}`).toHaveLength(1)
  }
})

test.each<[string, (bytes: Buffer) => void]>([
  ['a topic of a negative length', (bytes) => bytes.writeInt16BE(-6, 14)],
  ['more topics than there are', (bytes) => bytes.writeInt32BE(0x7fffffff, 10)],
  ['more partitions than there are', (bytes) => bytes.writeInt32BE(0x7fffffff, 16 + bytes.readInt16BE(14))],
])('%s is no answer', (_name, change) => {
  for (const [, whole] of responses) {
    const bytes = Buffer.from(whole)
    change(bytes)
    expect(() => decodeFetchResponse(bytes, 11)).toThrow()
  }
})

test('control records and aborted transactions are left out, in their place', () => {
  const transactional = 0x10
  const control = 0x30
  const bytes = Buffer.concat([
    batchOf(['aborted'], 0, withAttributes(transactional)),
    batchOf(['plain'], 1),
    batchOf(['marker'], 2, withAttributes(control)),
    batchOf(['committed'], 3, withAttributes(transactional)),
    batchOf(['marker'], 4, withAttributes(control)),
  ])
  expect(texts(bytes, [{ producerId: 7n, firstOffset: 0n }])).toEqual(['plain', 'committed'])
  expect(texts(bytes)).toEqual(['aborted', 'plain', 'committed'])
  expect(decodeRecords(bytes).next).toBe(5)
})

test('whatever is in a batch, nothing throws and reading goes on behind it', () => {
  const samples = [
    ...responses.map(([, bytes]) => bytes.subarray(-400)),
    batchOf(['abc']),
    compressed(batchOf(['abc'])),
  ]
  fc.assert(
    fc.property(
      fc.constantFrom(...samples),
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 8 }),
      fc.nat(4),
      (sample, changes, codec) => {
        const body = Buffer.from(sample)
        for (const [at, byte] of changes) body[at % body.length] = byte
        const bad = Buffer.concat([batchOf([]).subarray(0, 61), body])
        bad.writeInt32BE(bad.length - 12, 8)
        bad.writeInt16BE(codec, 21)
        bad.writeInt32BE(0, 23)
        bad.writeInt32BE(1 + ((changes[0]?.[0] ?? 0) % 1000), 57)
        const { records, next } = decodeRecords(Buffer.concat([sealed(bad), batchOf(['behind'], 1)]))
        expect(String(records.at(-1)?.value)).toBe('behind')
        expect(next).toBe(2)
      },
    ),
    { numRuns: 3000 },
  )
})
