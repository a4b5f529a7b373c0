import { expect, test } from 'vitest'
import { createTrend } from './trend.js'

const filled = (value: (at: number) => number, until = 600) => {
  const trend = createTrend(1800)
  for (let at = 0; at <= until; at += 15) trend.add(at, value(at))
  return trend
}

test('a ramp reaches its bound when it does', () => {
  expect(filled((at) => 1000 + 10 * at).secondsUntil(43_000)).toBeCloseTo(3600)
  // a sawtooth on it, as of a file that is rewritten, changes little
  expect(filled((at) => 1000 + 10 * at + (at % 30)).secondsUntil(43_000)).toBeCloseTo(3600, -2)
})

test('what does not grow is never full, what is full is', () => {
  expect(filled(() => 1000).secondsUntil(2000)).toBeNull()
  expect(filled((at) => 9000 - at).secondsUntil(20_000)).toBeNull()
  expect(filled((at) => 1000 + 10 * at).secondsUntil(5000)).toBe(0)
})

test('it looks back as far as it is told, and says nothing of a short time', () => {
  expect(filled((at) => (at < 1000 ? 10 * at : 10_000), 3000).secondsUntil(20_000)).toBeNull()
  expect(filled((at) => 10 * at, 45).secondsUntil(20_000)).toBeNull()
  const trend = filled((at) => 10 * at)
  trend.clear()
  expect(trend.secondsUntil(20_000)).toBeNull()
})
