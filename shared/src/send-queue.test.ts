// Which records are sent when, and what becomes of them when a partition refuses them: without a server.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type Batch, createSendQueue } from './send-queue.js'

const everywhere = () => true

function planted({ maxRecords = 1000, maxBytes = 100_000 } = {}) {
  const clock = { nowMs: 0 }
  const stored: number[] = []
  const redistributed: string[] = []
  const queue = createSendQueue<number>({
    maxRecords,
    maxBytes,
    partitionOf: (key, partitions) => Number(key) % partitions,
    backoffMs: () => 100,
    onRedistribute: (topic, partitions) => redistributed.push(`${topic}/${partitions}`),
    nowMs: () => clock.nowMs,
  })
  const push = (record: number, key = record, bytes = 100) =>
    queue.push({ topic: 't', key: String(key), record, bytes, onStored: () => stored.push(record) })
  const take = (isOpen: (topic: string, partition: number) => boolean = everywhere) => queue.take(isOpen)
  return { clock, queue, push, take, stored, redistributed }
}
const shown = (batches: Batch<number>[]) =>
  Object.fromEntries(batches.map(({ partition, items }) => [partition, items.map(({ record }) => record)]))

test('records go to the partitions of their keys, in order, and are stored once', () => {
  const { queue, push, take, stored } = planted()
  queue.setPartitions('t', 2)
  for (const record of [0, 1, 2, 3]) push(record)
  const batches = take()
  expect(shown(batches)).toEqual({ 0: [0, 2], 1: [1, 3] })
  push(4)
  expect(take()).toEqual([]) // one batch of a partition at a time
  for (const batch of batches) queue.stored(batch)
  expect(stored).toEqual([0, 2, 1, 3])
  expect(shown(take())).toEqual({ 0: [4] })
  expect(queue.size).toBe(1)
})

test('nothing is placed before the number of partitions is known', () => {
  const { clock, queue, push, take } = planted()
  push(1)
  queue.setPartitions('t', 0)
  expect(take()).toEqual([])
  clock.nowMs = 500
  expect(queue.stalledMs()).toBe(500)
  queue.setPartitions('t', 3)
  expect(shown(take())).toEqual({ 1: [1] })
})

test('a batch that failed comes again with the same records, after a pause, and holds up no other partition', () => {
  const { clock, queue, push, take, stored } = planted()
  queue.setPartitions('t', 2)
  push(0)
  push(1)
  const [even, odd] = take() as [Batch<number>, Batch<number>]
  expect(queue.failed(even)).toBe(100)
  queue.stored(odd)
  push(2)
  push(3)
  expect(shown(take())).toEqual({ 1: [3] })
  clock.nowMs = 100
  expect(shown(take())).toEqual({ 0: [0] })
  expect(stored).toEqual([1])
})

test('a closed partition waits, and how long it has stored nothing is known', () => {
  const { clock, queue, push, take } = planted()
  queue.setPartitions('t', 2)
  expect(queue.stalledMs()).toBe(0)
  push(0)
  push(1)
  expect(shown(take((_, partition) => partition === 1))).toEqual({ 1: [1] })
  clock.nowMs = 7000
  expect(queue.stalledMs()).toBe(7000)
})

test('a batch that is too large is halved until one record stands alone; the limit grows back', () => {
  const { queue, push, take, stored } = planted()
  queue.setPartitions('t', 1)
  for (const record of [0, 1, 2, 3]) push(record)
  let [batch] = take() as [Batch<number>]
  expect(queue.tooLarge(batch)).toBeNull()
  ;[batch] = take() as [Batch<number>]
  expect(shown([batch])).toEqual({ 0: [0, 1] })
  expect(queue.tooLarge(batch)).toBeNull()
  ;[batch] = take() as [Batch<number>]
  expect(shown([batch])).toEqual({ 0: [0] })
  expect(queue.tooLarge(batch)).toMatchObject({ record: 0 })
  expect(queue.size).toBe(3)
  ;[batch] = take() as [Batch<number>]
  expect(shown([batch])).toEqual({ 0: [1] })
  queue.stored(batch)
  ;[batch] = take() as [Batch<number>]
  expect(shown([batch])).toEqual({ 0: [2, 3] })
  queue.stored(batch)
  expect(stored).toEqual([1, 2, 3])
})

test('limits: records of a request, bytes of a batch; what a short partition leaves is for a long one', () => {
  const { queue, take, push } = planted({ maxRecords: 10, maxBytes: 500 })
  queue.setPartitions('t', 2)
  push(1, 1)
  for (let record = 0; record < 20; record++) push(record * 2, 0, 10)
  const batches = take()
  expect(batches.map(({ items }) => items.length)).toEqual([1, 9])
  for (const batch of batches) queue.stored(batch)
  for (let record = 0; record < 20; record++) push(record * 2 + 1, 1, 200)
  const odd = take().find(({ partition }) => partition === 1)
  expect(odd?.items).toHaveLength(2)
})

test('more partitions: what waits is stored first, then devices move', () => {
  const { queue, push, take } = planted()
  queue.setPartitions('t', 2)
  push(2)
  const batches = take()
  queue.setPartitions('t', 3)
  push(102, 2) // key 2 is of partition 0 now, of partition 2 then
  expect(take()).toEqual([])
  for (const batch of batches) queue.stored(batch)
  expect(shown(take())).toEqual({ 2: [102] })
})

test('a change that is taken back leaves nothing behind', () => {
  const { queue, push, take } = planted()
  queue.setPartitions('t', 2)
  push(1)
  const [batch] = take() as [Batch<number>]
  queue.setPartitions('t', 3)
  push(3)
  queue.setPartitions('t', 2)
  queue.stored(batch)
  expect(shown(take())).toEqual({ 1: [3] })
})

test('fewer partitions: what is not stored is distributed again, once nothing is under way', () => {
  const { queue, push, take, stored, redistributed } = planted()
  queue.setPartitions('t', 6)
  for (const record of [0, 4, 5, 10]) push(record)
  const batches = take()
  push(16, 4)
  queue.setPartitions('t', 2)
  push(22, 4)
  expect(take()).toEqual([])
  for (const batch of batches) {
    if (batch.partition === 0) queue.stored(batch)
    else queue.failed(batch)
  }
  expect(redistributed).toEqual(['t/6'])
  expect(shown(take())).toEqual({ 0: [4, 10, 16, 22], 1: [5] })
  expect(stored).toEqual([0])
})

test('what breaks the order of calls is a bug and throws', () => {
  const { queue, push, take } = planted()
  queue.setPartitions('t', 1)
  push(0)
  const [batch] = take() as [Batch<number>]
  queue.stored(batch)
  expect(() => queue.stored(batch)).toThrow('not in hand')
  expect(() => queue.failed({ ...batch, partition: 9 })).toThrow('no partition')
})

test('whatever is refused, moved and resized: every record is stored once, and each key in order', () => {
  const step = fc.oneof(
    { weight: 5, arbitrary: fc.record({ do: fc.constant('push' as const), key: fc.nat(5) }) },
    { weight: 4, arbitrary: fc.record({ do: fc.constant('send' as const), refused: fc.nat(63) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('resize' as const), count: fc.integer({ min: 1, max: 6 }) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('wait' as const) }) },
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
      const { clock, queue, push, take, stored } = planted({ maxRecords: 7 })
      let next = 0
      const keys: number[] = []
      let underWay: Batch<number>[] = []
      const send = (refused: number) => {
        for (const batch of underWay) {
          if ((refused >> batch.partition) & 1) queue.failed(batch)
          else queue.stored(batch)
        }
        underWay = take()
      }
      queue.setPartitions('t', 4)
      for (const one of steps) {
        if (one.do === 'push') {
          keys.push(one.key)
          push(next++, one.key)
        } else if (one.do === 'resize') queue.setPartitions('t', one.count)
        else if (one.do === 'wait') clock.nowMs += 100
        else send(one.refused)
      }
      for (let round = 0; queue.size > 0 && round < 500; round++) {
        clock.nowMs += 100
        send(0)
      }
      expect([...stored].sort((a, b) => a - b)).toEqual(keys.map((_, record) => record))
      for (let key = 0; key <= 5; key++) {
        const own = stored.filter((record) => keys[record] === key)
        expect(own).toEqual([...own].sort((a, b) => a - b))
      }
    }),
    { numRuns: 2000 },
  )
})
