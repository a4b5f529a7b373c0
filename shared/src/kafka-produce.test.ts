// Our bytes are kafkajs's bytes: each of the parts that replace one of its own is held against the original.
import './kafka-produce.js'
import { createRequire } from 'node:module'
import fc from 'fast-check'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { encodeProduce, groupByPartition, partitionOf } from './kafka-produce.js'

const require = createRequire(import.meta.url)

/** The module as kafkajs ships it. */
function original<Exports>(module: string): Exports {
  const file = require.resolve(`kafkajs/src/${module}`)
  const replaced = require.cache[file]
  delete require.cache[file]
  const exports = require(file)
  if (replaced) require.cache[file] = replaced
  return exports
}

type Arguments = Parameters<typeof encodeProduce>[0]
const produce = original<(args: Arguments) => { encode(): Promise<{ buffer: Buffer }> }>(
  'protocol/requests/produce/v3/request',
)
const group = original<typeof groupByPartition>('producer/groupMessagesPerPartition')
const murmur2 = original<(key: Buffer | string) => number>('producer/partitioners/default/murmur2')

beforeEach(() => void vi.useFakeTimers({ now: 1_700_000_000_000 }))
afterEach(() => void vi.useRealTimers())

const bytes = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 300 }),
  fc.uint8Array({ maxLength: 300 }).map((array) => Buffer.from(array)),
)
const message = fc.record(
  {
    key: fc.oneof(bytes, fc.constant(null)),
    value: fc.oneof(bytes, fc.constant(null)),
    headers: fc.dictionary(
      fc.string({ minLength: 1 }),
      fc.oneof(bytes, fc.array(bytes, { minLength: 1, maxLength: 3 })),
    ),
  },
  { requiredKeys: ['key', 'value'] },
)

test('a Produce request has the bytes that kafkajs gives it', async () => {
  const topicData = fc.array(
    fc.record({
      topic: fc.string({ minLength: 1, maxLength: 40 }),
      partitions: fc.array(
        fc.record({
          partition: fc.nat(100),
          firstSequence: fc.nat(0x7fffffff),
          messages: fc.array(message, { minLength: 1, maxLength: 130 }),
        }),
        { minLength: 1, maxLength: 4 },
      ),
    }),
    { minLength: 1, maxLength: 3 },
  )
  await fc.assert(
    fc.asyncProperty(topicData, fc.bigInt(0n, 2n ** 62n), fc.nat(30_000), async (data, id, producerEpoch) => {
      const args = { acks: -1, timeout: 30_000, producerId: String(id), producerEpoch, topicData: data } as Arguments
      const theirs = await produce(args).encode()
      expect(encodeProduce(args).equals(theirs.buffer)).toBe(true)
    }),
  )
})

test('timestamps of their own go in as kafkajs writes them', async () => {
  const messages = ['1700000000500', '1700000000000', '1700000009000'].map((timestamp) => ({ value: 'v', timestamp }))
  const args = {
    acks: -1,
    timeout: 1,
    producerId: '1',
    producerEpoch: 0,
    topicData: [{ topic: 't', partitions: [{ partition: 0, firstSequence: 0, messages }] }],
  }
  expect(encodeProduce(args).equals((await produce(args).encode()).buffer)).toBe(true)
})

test('messages are grouped as kafkajs groups them', () => {
  const partitioner = ({ message: number }: { message: number }) => Math.abs(number) % 7
  fc.assert(
    fc.property(fc.array(fc.integer()), (messages) => {
      const args = { topic: 't', partitionMetadata: [{}], messages, partitioner }
      expect(groupByPartition(args)).toEqual(group(args))
    }),
  )
  expect(groupByPartition({ topic: 't', partitionMetadata: [], messages: [1], partitioner })).toEqual({})
})

test('a key has the partition that Java chooses', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), fc.integer({ min: 1, max: 100 }), (array, partitions) => {
      const key = Buffer.from(array)
      expect(partitionOf(key, partitions)).toBe((murmur2(key) & 0x7fffffff) % partitions)
    }),
    { numRuns: 1000 },
  )
})

test('kafkajs itself uses the replaced parts', () => {
  expect(require('kafkajs/src/producer/groupMessagesPerPartition')).toBe(groupByPartition)
  expect(String(require('kafkajs/src/protocol/requests/produce/v3/request'))).toContain('encodeProduce')
})
