// Our bytes are kafkajs's bytes: a Produce request is held against the one that kafkajs would have sent.
import { createRequire } from 'node:module'
import fc from 'fast-check'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { encodeProduce, type TopicData } from './produce-request.js'

const require = createRequire(import.meta.url)
const theirs = require('kafkajs/src/protocol/requests/produce/v3/request') as (args: object) => {
  encode(): Promise<{ buffer: Buffer }>
}

beforeEach(() => void vi.useFakeTimers({ now: 1_700_000_000_000 }))
afterEach(() => void vi.useRealTimers())

const text = fc.string({ unit: 'binary', maxLength: 300 })
const bytes = fc.uint8Array({ maxLength: 300 }).map((array) => Buffer.from(array))
const record = fc.record(
  {
    key: fc.option(text),
    value: fc.oneof(text, bytes, fc.constant(null)),
    headers: fc.dictionary(fc.string({ minLength: 1 }), text),
  },
  { requiredKeys: ['key', 'value'] },
)
const topicData = fc.array(
  fc.record({
    topic: fc.string({ minLength: 1, maxLength: 40 }),
    partitions: fc.array(
      fc.record({
        partition: fc.nat(100),
        firstSequence: fc.nat(0x7fffffff),
        records: fc.array(record, { minLength: 1, maxLength: 130 }),
      }),
      { minLength: 1, maxLength: 4 },
    ),
  }),
  { minLength: 1, maxLength: 3 },
)

test('a Produce request has the bytes that kafkajs gives it', async () => {
  await fc.assert(
    fc.asyncProperty(topicData, fc.bigInt(0n, 2n ** 62n), fc.nat(30_000), async (data, producerId, producerEpoch) => {
      const ours: TopicData[] = data.map(({ topic, partitions }) => ({
        topic,
        partitions: partitions.map((one) => ({ ...one, producerId, producerEpoch })),
      }))
      const same = data.map(({ topic, partitions }) => ({
        topic,
        partitions: partitions.map(({ records, ...rest }) => ({ ...rest, messages: records })),
      }))
      const args = { acks: -1, timeout: 30_000, producerId: String(producerId), producerEpoch, topicData: same }
      const expected = await theirs(args).encode()
      expect(encodeProduce(-1, 30_000, ours).equals(expected.buffer)).toBe(true)
    }),
  )
})
