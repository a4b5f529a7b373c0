// What becomes of a batch, with a sink made by hand.
import { type DeadLetter, encodeMessage } from '@iot/shared/contract'
import type { Logger } from 'pino'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import type { SourceRecord } from './batch.js'
import { createStoring, type Sink } from './storing.js'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

const record = (deviceId: string, offset: number): SourceRecord => ({
  key: Buffer.from(deviceId),
  value: Buffer.from(encodeMessage(deviceId, '1', '1700000000')),
  offset: String(offset),
})

/** A sink that refuses what `errorOf` says, by device and how often it was asked. */
function setUp(errorOf: (deviceId: string, tries: number) => string | undefined = () => undefined) {
  const writes: string[][] = []
  const letters: DeadLetter[] = []
  const lines: { error: string; devices: number; records: number }[] = []
  const sink: Sink = {
    start() {},
    check: () => null,
    async write(devices) {
      writes.push(devices.map(({ deviceId }) => deviceId))
      return devices.flatMap((work) => {
        const tries = writes.filter((ids) => ids.includes(work.deviceId)).length
        const error = errorOf(work.deviceId, tries)
        return error === undefined ? [] : [{ work, error }]
      })
    },
    async stop() {},
  }
  const logger = { error: (fields: (typeof lines)[number]) => lines.push(fields) } as unknown as Logger
  const deadLetter = async (letter: DeadLetter) => void letters.push(letter)
  return { store: createStoring({ sink, deadLetter, topic: 'iot-data', logger }), sink, writes, letters, lines }
}

test('a batch is written once, merged by device', async () => {
  const { store, writes, letters, lines } = setUp()
  await store([record('a', 1), record('b', 2), record('a', 3)], 0)
  expect(writes).toEqual([['a', 'b']])
  expect(letters).toEqual([])
  expect(lines).toEqual([])
})

test('a refused device is asked for three times, alone, and becomes dead letters', async () => {
  const { store, writes, letters } = setUp((id) => (id === 'bad' ? 'WRONGTYPE' : undefined))
  const batch = [record('bad', 7), record('good', 8), record('bad', 9)]
  await store(batch, 3)
  expect(writes).toEqual([['bad', 'good'], ['bad'], ['bad']])
  expect(letters).toEqual(
    [7, 9].map((offset) => ({
      reason: 'redis_rejected',
      source: `iot-data/3@${offset}`,
      deviceId: 'bad',
      value: record('bad', offset).value,
    })),
  )
})

test('one that is refused no longer is no dead letter', async () => {
  const { store, letters, lines } = setUp((_id, tries) => (tries < 3 ? 'WRONGTYPE' : undefined))
  await store([record('a', 1)], 0)
  expect(letters).toEqual([])
  expect(lines).toEqual([])
})

test('what cannot be read is a dead letter once the rest is written', async () => {
  const { store, sink, letters } = setUp()
  const garbage: SourceRecord = { key: null, value: Buffer.from('?'), offset: '5' }
  await store([garbage, record('a', 6)], 1)
  expect(letters).toEqual([{ reason: 'invalid_message', source: 'iot-data/1@5', value: garbage.value }])
  letters.length = 0
  sink.write = () => Promise.reject(new Error('away'))
  await expect(store([garbage, record('a', 6)], 1)).rejects.toThrow('away')
  expect(letters).toEqual([])
})

test('a batch is stored only when its dead letters are', async () => {
  const { sink, letters } = setUp()
  let release = () => {}
  const deadLetter = (letter: DeadLetter) => {
    letters.push(letter)
    return new Promise<void>((resolve) => {
      release = resolve
    })
  }
  const store = createStoring({ sink, deadLetter, topic: 'iot-data', logger: {} as Logger })
  let isStored = false
  const stored = store([{ key: null, value: null, offset: '0' }], 0).then(() => {
    isStored = true
  })
  await vi.waitFor(() => expect(letters).toHaveLength(1))
  await vi.advanceTimersByTimeAsync(60_000)
  expect(isStored).toBe(false)
  release()
  await stored
})

test('a flood of refusals is one line a minute and reason, with how many since', async () => {
  const { store, lines } = setUp((id) => (id.startsWith('f') ? 'ERR value is not a valid float' : 'WRONGTYPE'))
  await store([record('a', 0), record('b', 1), record('a', 2)], 0)
  expect(lines).toEqual([{ error: 'WRONGTYPE', devices: 2, records: 3 }])
  for (let i = 0; i < 1000; i++) await store([record(`x${i % 7}`, i), record('a', i)], 0)
  expect(lines).toHaveLength(1)
  await store([record('f', 0)], 0)
  expect(lines.splice(0)).toHaveLength(2) // another reason
  await vi.advanceTimersByTimeAsync(60_000)
  expect(lines.splice(0)).toEqual([{ error: 'WRONGTYPE', devices: 8, records: 2000 }])
  await store([record('a', 0)], 0)
  expect(lines).toEqual([]) // its minute is not over
  await vi.advanceTimersByTimeAsync(60_000)
  expect(lines.splice(0)).toEqual([{ error: 'WRONGTYPE', devices: 1, records: 1 }])
  await vi.advanceTimersByTimeAsync(120_000)
  await store([record('a', 0)], 0)
  expect(lines).toEqual([{ error: 'WRONGTYPE', devices: 1, records: 1 }]) // after a quiet minute at once
})
