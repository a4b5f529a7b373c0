import { pino } from 'pino'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { createLimitedLog } from './log-limit.js'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

test('the first of a kind at once, then one line a minute with how many there were', () => {
  const lines: Record<string, unknown>[] = []
  const log = createLimitedLog(pino({ base: null }, { write: (line) => void lines.push(JSON.parse(line)) }))
  const said = () => lines.splice(0).map(({ msg, count, id }) => ({ msg, count, id }))
  for (let id = 1; id <= 1000; id++) log.warn('full', { id }, 'no room')
  log.warn('other', {}, 'something else')
  expect(said()).toEqual([{ msg: 'no room', id: 1 }, { msg: 'something else' }])
  vi.advanceTimersByTime(60_000)
  expect(said()).toEqual([{ msg: 'no room', count: 999, id: 1000 }])
  log.warn('full', { id: 1001 }, 'no room')
  expect(said()).toEqual([])
  vi.advanceTimersByTime(60_000)
  expect(said()).toEqual([{ msg: 'no room', count: 1, id: 1001 }])
  vi.advanceTimersByTime(60_000)
  expect(said()).toEqual([])
  log.warn('full', { id: 1002 }, 'no room')
  expect(said()).toEqual([{ msg: 'no room', id: 1002 }])
})
