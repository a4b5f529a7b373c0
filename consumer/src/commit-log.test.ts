import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { type CommitLog, createCommitLog, type Owed } from './commit-log.js'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

const INTERVAL_MS = 250

/** A log whose requests are answered by hand. */
function open() {
  const requests: {
    owed: string[]
    answer: (...errors: (Error | null)[]) => Promise<void>
    fail: () => Promise<void>
  }[] = []
  let committed = 0
  const failures: unknown[] = []
  const flush = () => vi.advanceTimersByTimeAsync(0)
  const log = createCommitLog({
    commit: (owed) =>
      new Promise((resolve, reject) => {
        requests.push({
          owed: owed.map(({ topic, partition, next }) => `${topic}/${partition}@${next}`),
          async answer(...errors) {
            resolve(errors.length > 0 ? errors : owed.map(() => null))
            await flush()
          },
          async fail() {
            reject(new Error('away'))
            await flush()
          },
        })
      }),
    onCommitted: (count) => {
      committed += count
    },
    onFailed: (error) => failures.push(error),
    onBug: (error) => failures.push(error),
    intervalMs: INTERVAL_MS,
    nowMs: () => Date.now(),
  })
  const owed = () => requests.map((one) => one.owed)
  return { log, requests, owed, committed: () => committed, failures, flush }
}
const write = (log: CommitLog, partition: number, next: number, generation = 1, topic = 't', count = 10) =>
  log.written({ topic, partition, next, count } satisfies Owed, generation)

test('the first is committed at once, what comes meanwhile in one request after the interval', async () => {
  const { log, requests, owed, committed } = open()
  log.begin(1)
  write(log, 0, 10)
  write(log, 0, 20)
  write(log, 1, 5)
  await requests[0]?.answer()
  await vi.advanceTimersByTimeAsync(INTERVAL_MS - 1)
  expect(owed()).toEqual([['t/0@10']])
  await vi.advanceTimersByTimeAsync(1)
  expect(owed()).toEqual([['t/0@10'], ['t/0@20', 't/1@5']])
  await requests[1]?.answer()
  expect(log.owed).toBe(0)
  expect(committed()).toBe(30)
})

test('a commit that failed stays owed and is made again, with no further traffic', async () => {
  const { log, requests, owed, committed, failures } = open()
  log.begin(1)
  write(log, 0, 10)
  await requests[0]?.fail()
  expect(failures).toHaveLength(1)
  await vi.advanceTimersByTimeAsync(INTERVAL_MS)
  await requests[1]?.answer()
  expect(owed()).toEqual([['t/0@10'], ['t/0@10']])
  expect(committed()).toBe(10)
  await vi.advanceTimersByTimeAsync(10 * INTERVAL_MS)
  expect(requests).toHaveLength(2)
})

test('a partition that is refused stays owed, its neighbour is done', async () => {
  const { log, requests, owed, committed } = open()
  log.begin(1)
  write(log, 0, 10)
  await requests[0]?.answer()
  write(log, 0, 20)
  write(log, 1, 7)
  await vi.advanceTimersByTimeAsync(INTERVAL_MS)
  await requests[1]?.answer(new Error('no leader'), null)
  expect(log.owed).toBe(1)
  await vi.advanceTimersByTimeAsync(INTERVAL_MS)
  await requests[2]?.answer()
  expect(owed()[2]).toEqual(['t/0@20'])
  expect(committed()).toBe(30)
})

test('what was written while its commit was under way is owed after it', async () => {
  const { log, requests, owed, committed } = open()
  log.begin(1)
  write(log, 0, 10)
  write(log, 0, 15)
  await requests[0]?.answer()
  expect(log.owed).toBe(1)
  expect(committed()).toBe(10)
  await vi.advanceTimersByTimeAsync(INTERVAL_MS)
  await requests[1]?.answer()
  expect(owed()[1]).toEqual(['t/0@15'])
  expect(committed()).toBe(20)
})

test('a late entry of an old generation is dropped, and so is what the old generation owed', async () => {
  const { log, requests, owed, flush } = open()
  log.begin(1)
  write(log, 0, 10)
  await requests[0]?.fail()
  log.begin(2)
  write(log, 0, 20, 1)
  await vi.advanceTimersByTimeAsync(2 * INTERVAL_MS)
  expect(requests).toHaveLength(1)
  expect(log.owed).toBe(0)
  write(log, 0, 8, 2) // read again from the committed offset
  await flush()
  expect(owed()[1]).toEqual(['t/0@8'])
})

test('the answer to a commit of the old generation settles nothing of the new one', async () => {
  const { log, requests, owed, failures } = open()
  log.begin(1)
  write(log, 0, 10)
  log.begin(2)
  write(log, 0, 10, 2)
  await requests[0]?.answer()
  expect(log.owed).toBe(1)
  await vi.advanceTimersByTimeAsync(INTERVAL_MS)
  await requests[1]?.answer()
  expect(owed()).toEqual([['t/0@10'], ['t/0@10']])
  expect(failures).toEqual([])
})

test('an offset that Kafka has lost is committed again', async () => {
  const { log, requests, owed, committed } = open()
  log.begin(1)
  write(log, 0, 10)
  await requests[0]?.answer()
  const found = (offset: number | null) => [{ topic: 't', partition: 0, offset }]
  log.confirm(found(10))
  log.confirm([{ topic: 't', partition: 9, offset: null }]) // not ours
  await vi.advanceTimersByTimeAsync(INTERVAL_MS)
  expect(requests).toHaveLength(1)
  log.confirm(found(null)) // its tombstone came after our commit
  await requests[1]?.answer()
  expect(owed()).toEqual([['t/0@10'], ['t/0@10']])
  expect(committed()).toBe(10)
})

test('what the group had committed before the generation began is owed again too, once Kafka has lost it', async () => {
  const { log, requests, owed, committed } = open()
  const found = (offset: number | null, partition = 0) => ({ topic: 't', partition, offset })
  log.begin(1, [found(7), found(null, 1)])
  log.confirm([found(7), found(null, 1)])
  expect(requests).toHaveLength(0)
  log.confirm([found(3), found(null, 1)])
  await requests[0]?.answer()
  expect(owed()).toEqual([['t/0@7']])
  expect(committed()).toBe(0) // nothing was stored anew
  log.begin(2, [])
  log.confirm([found(3)]) // another member's
  await vi.advanceTimersByTimeAsync(INTERVAL_MS)
  expect(requests).toHaveLength(1)
})

test('partitions of equal number of two topics are kept apart', async () => {
  const { log, requests, owed } = open()
  log.begin(1)
  write(log, 0, 10, 1, 'a')
  write(log, 0, 3, 1, 'b')
  await requests[0]?.answer()
  await vi.advanceTimersByTimeAsync(INTERVAL_MS)
  expect(owed()).toEqual([['a/0@10'], ['b/0@3']])
})

test('a flush commits at once, tries again, and tells whether all is done', async () => {
  const { log, requests } = open()
  log.begin(1)
  write(log, 0, 10)
  await requests[0]?.answer()
  write(log, 0, 20) // would wait for the interval
  const flushed = log.flush(1000)
  await vi.advanceTimersByTimeAsync(0)
  await requests[1]?.fail()
  await vi.advanceTimersByTimeAsync(50)
  await requests[2]?.answer()
  expect(await flushed).toBe(true)
})

test('a flush ends at its deadline, whatever Kafka does, and what is owed stays owed', async () => {
  const { log, requests } = open()
  log.begin(1)
  write(log, 0, 10)
  const flushed = log.flush(1000) // the request is never answered
  await vi.advanceTimersByTimeAsync(1000)
  expect(await flushed).toBe(false)
  expect(log.owed).toBe(1)
  expect(requests).toHaveLength(1)
})

test('a flush with nothing owed is done', async () => {
  const { log } = open()
  log.begin(1)
  expect(await log.flush(1000)).toBe(true)
})

test('what cannot be throws: going backwards, an offset that is none, a generation that has not begun', async () => {
  const { log } = open()
  log.begin(1)
  write(log, 0, 10)
  expect(() => write(log, 0, 10)).toThrow('t/0 was written up to 10 after 10')
  expect(() => write(log, 0, 9)).toThrow('t/0 was written up to 9 after 10')
  expect(() => write(log, 1, Number.NaN)).toThrow('t/1 was written up to NaN')
  expect(() => write(log, 0, 11, 2)).toThrow('generation 2 has not begun')
  expect(() => log.begin(1)).toThrow('generation 1 after 1')
})
