import { createRequire } from 'node:module'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { partitionOf } from './partitioner.js'

const murmur2 = createRequire(import.meta.url)('kafkajs/src/producer/partitioners/default/murmur2') as (
  key: Buffer,
) => number

test('a key has the partition that Java chooses', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), fc.integer({ min: 1, max: 100 }), (array, partitions) => {
      const key = Buffer.from(array)
      expect(partitionOf(key, partitions)).toBe((murmur2(key) & 0x7fffffff) % partitions)
    }),
    { numRuns: 1000 },
  )
})
