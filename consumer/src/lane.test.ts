import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import type { SourceRecord } from './batch.js'
import { createLane, type LaneOptions } from './lane.js'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

const recordsOf = (from: number, count: number, bytes = 1): SourceRecord[] =>
  Array.from({ length: count }, (_, i) => ({ key: null, value: Buffer.alloc(bytes), offset: String(from + i) }))
const offsets = (records: SourceRecord[]) => records.map(({ offset }) => Number(offset))

/** A lane whose writes are settled by hand. */
function open(options: Partial<LaneOptions> = {}) {
  const writes: { offsets: number[]; store: () => Promise<void>; fail: () => Promise<void> }[] = []
  const written: { offsets: number[]; generation: number }[] = []
  let failed = 0
  const flush = () => vi.advanceTimersByTimeAsync(0)
  const lane = createLane(
    { batchSize: 3, maxBytes: 100, intervalMs: 0, retryMs: () => 50, nowMs: () => Date.now(), ...options },
    {
      write: (records) =>
        new Promise((resolve, reject) => {
          const settle = (how: () => void) => async () => {
            how()
            await flush()
          }
          writes.push({
            offsets: offsets(records),
            store: settle(resolve),
            fail: settle(() => reject(new Error('no'))),
          })
        }),
      onWritten: (records, generation) => written.push({ offsets: offsets(records), generation }),
      onFailed: () => failed++,
    },
  )
  return { lane, writes, written, failed: () => failed, flush }
}

test('what is there is written at once, one batch at a time, cut at the size', async () => {
  const { lane, writes, written, flush } = open()
  lane.begin(1)
  lane.push(recordsOf(0, 1))
  await flush()
  lane.push(recordsOf(1, 4))
  await flush()
  expect(writes.map((one) => one.offsets)).toEqual([[0]])
  await writes[0]?.store()
  await writes[1]?.store()
  expect(writes.map((one) => one.offsets)).toEqual([[0], [1, 2, 3], [4]])
  expect(written).toEqual([
    { offsets: [0], generation: 1 },
    { offsets: [1, 2, 3], generation: 1 },
  ])
})

test('a batch is cut by bytes; a larger record is a batch of its own', async () => {
  const { lane, writes, flush } = open()
  lane.begin(1)
  lane.push([...recordsOf(0, 2, 60), ...recordsOf(2, 1, 500), ...recordsOf(3, 1)])
  for (let i = 0; i < 4; i++) {
    await flush()
    await writes[i]?.store()
  }
  expect(writes.map((one) => one.offsets)).toEqual([[0], [1], [2], [3]])
})

test('with an interval a batch waits until it is full, or its oldest record has waited so long', async () => {
  const { lane, writes, flush } = open({ intervalMs: 100 })
  lane.begin(1)
  lane.push(recordsOf(0, 1))
  await vi.advanceTimersByTimeAsync(60)
  lane.push(recordsOf(1, 1))
  await vi.advanceTimersByTimeAsync(39)
  expect(writes).toHaveLength(0)
  await vi.advanceTimersByTimeAsync(1)
  expect(writes.map((one) => one.offsets)).toEqual([[0, 1]])
  lane.push(recordsOf(2, 1)) // while the first is written
  await vi.advanceTimersByTimeAsync(70)
  await writes[0]?.store()
  expect(writes).toHaveLength(1)
  await vi.advanceTimersByTimeAsync(30) // its own time, not one that began when the first was done
  expect(writes.map((one) => one.offsets)).toEqual([[0, 1], [2]])
  await writes[1]?.store()
  lane.push(recordsOf(3, 3))
  await flush()
  expect(writes).toHaveLength(3)
})

test('a batch that fails is written again, the same, with pauses', async () => {
  const { lane, writes, written, failed } = open()
  lane.begin(1)
  lane.push(recordsOf(0, 2))
  await vi.advanceTimersByTimeAsync(0)
  await writes[0]?.fail()
  expect(writes).toHaveLength(1)
  await vi.advanceTimersByTimeAsync(50)
  await writes[1]?.store()
  expect(writes.map((one) => one.offsets)).toEqual([
    [0, 1],
    [0, 1],
  ])
  expect(failed()).toBe(1)
  expect(written).toHaveLength(1)
})

test('a new generation forgets what was collected, and what was being written counts for none', async () => {
  const { lane, writes, written, flush } = open()
  lane.begin(1)
  lane.push(recordsOf(0, 5))
  await flush()
  lane.begin(2)
  lane.push(recordsOf(0, 2))
  await flush()
  expect(writes).toHaveLength(1) // one at a time, whatever the generation
  await writes[0]?.store()
  expect(written).toEqual([])
  await writes[1]?.store()
  expect(written).toEqual([{ offsets: [0, 1], generation: 2 }])
})

test('a batch of an old generation that fails is not tried again', async () => {
  const { lane, writes, flush } = open()
  lane.begin(1)
  lane.push(recordsOf(0, 1))
  await flush()
  lane.begin(2)
  await writes[0]?.fail()
  await vi.advanceTimersByTimeAsync(1000)
  expect(writes).toHaveLength(1)
})

test('held, it finishes the batch in hand, begins no other, and gives up one that fails', async () => {
  const { lane, writes, written, flush } = open()
  lane.begin(1)
  lane.push(recordsOf(0, 5))
  await flush()
  let isHeld = false
  void lane.hold().then(() => {
    isHeld = true
  })
  await flush()
  expect(isHeld).toBe(false)
  await writes[0]?.store()
  expect(isHeld).toBe(true)
  expect(written).toEqual([{ offsets: [0, 1, 2], generation: 1 }])
  await vi.advanceTimersByTimeAsync(1000)
  expect(writes).toHaveLength(1)

  lane.begin(2)
  lane.push(recordsOf(3, 1))
  await flush()
  const held = lane.hold()
  await writes[1]?.fail()
  await held
  await vi.advanceTimersByTimeAsync(1000)
  expect(writes).toHaveLength(2)
})

test('drained, it writes all it holds without waiting to be full', async () => {
  const { lane, writes, flush } = open({ intervalMs: 60_000 })
  lane.begin(1)
  lane.push(recordsOf(0, 3))
  lane.push(recordsOf(3, 1))
  let isDone = false
  void lane.drain().then(() => {
    isDone = true
  })
  await flush()
  await writes[0]?.store()
  expect(isDone).toBe(false)
  await writes[1]?.store()
  expect(writes.map((one) => one.offsets)).toEqual([[0, 1, 2], [3]])
  expect(isDone).toBe(true)
})

test('closed, it forgets, and its end is told', async () => {
  const { lane, writes, written, flush } = open()
  lane.begin(1)
  lane.push(recordsOf(0, 4))
  await flush()
  lane.close()
  await writes[0]?.store()
  await lane.done
  expect(written).toEqual([])
  expect(lane.size).toBe(0)
})

test('full is a batch and one more, in records or in bytes', () => {
  const { lane } = open()
  lane.begin(1)
  lane.push(recordsOf(0, 5))
  expect(lane.isFull).toBe(false)
  lane.push(recordsOf(5, 1))
  expect(lane.isFull).toBe(true)
  lane.begin(2)
  lane.push(recordsOf(0, 1, 200))
  expect(lane.isFull).toBe(true)
})

test('what cannot be throws: records outside a generation, a generation twice, a closed lane', () => {
  const { lane } = open()
  expect(() => lane.push(recordsOf(0, 1))).toThrow('a lane that is held takes no records')
  lane.begin(5)
  expect(() => lane.begin(5)).toThrow('generation 5 after 5')
  lane.close()
  expect(() => lane.push(recordsOf(0, 1))).toThrow('a lane that is closed takes no records')
  expect(() => lane.begin(6)).toThrow('a closed lane')
})
