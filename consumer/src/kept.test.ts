import { expect, test } from 'vitest'
import { type Holding, secondsUntilSkipped } from './kept.js'

const DAY = 86_400
const FOREVER = Number.POSITIVE_INFINITY
/** A partition of a thousand records of 100 bytes, ten come a second. */
const holding = (found: Partial<Holding>): Holding => ({
  ...{ low: 1000, high: 2000, next: 2000, waitingSeconds: 0, bytes: 100_000, recordsPerSecond: 10 },
  ...found,
})

test('by age: what waits already counts', () => {
  const kept = { seconds: DAY, bytes: FOREVER }
  expect(secondsUntilSkipped(holding({}), kept)).toBe(DAY)
  expect(secondsUntilSkipped(holding({ next: 1000, waitingSeconds: DAY - 3600 }), kept)).toBe(3600)
  expect(secondsUntilSkipped(holding({ next: 1000, waitingSeconds: 2 * DAY }), kept)).toBe(0)
})

test('by bytes: what comes pushes out what waits', () => {
  const kept = { seconds: FOREVER, bytes: 1_000_000 }
  expect(secondsUntilSkipped(holding({}), kept)).toBe(1000)
  expect(secondsUntilSkipped(holding({ next: 1500 }), kept)).toBe(950)
  expect(secondsUntilSkipped(holding({ recordsPerSecond: 0 }), kept)).toBe(FOREVER)
})

test('whichever comes first, and nothing where nothing is removed', () => {
  expect(secondsUntilSkipped(holding({}), { seconds: 500, bytes: 1_000_000 })).toBe(500)
  expect(secondsUntilSkipped(holding({}), { seconds: DAY, bytes: 1_000_000 })).toBe(1000)
  expect(secondsUntilSkipped(holding({}), { seconds: FOREVER, bytes: FOREVER })).toBe(FOREVER)
  expect(secondsUntilSkipped(holding({ low: 0, high: 0, next: 0, bytes: 0 }), { seconds: DAY, bytes: 1 })).toBe(DAY)
})
