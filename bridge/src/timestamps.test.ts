import { expect, test } from 'vitest'
import { createTimestamps } from './timestamps.js'

test('whole seconds', () => {
  expect(createTimestamps('s', () => 1_678_886_400_999)()).toBe('1678886400')
})

test('six decimals, later each time, also when the clock stands still, is set back or goes over a second', () => {
  const clock = [1_678_886_400_123, 1_678_886_400_123, 1_678_886_399_000, 1_678_886_400_999, 1_678_886_401_000]
  const next = createTimestamps('us', () => clock.shift() as number)
  expect(Array.from({ length: 5 }, next)).toEqual([
    '1678886400.123000',
    '1678886400.123001',
    '1678886400.123002',
    '1678886400.999000',
    '1678886401.000000',
  ])
})

test('as numbers they rise too: a sorted set keeps their order', () => {
  const next = createTimestamps('us', () => 1_900_000_000_000)
  const times = Array.from({ length: 2000 }, next).map(Number)
  expect(new Set(times).size).toBe(2000)
  expect([...times].sort((a, b) => a - b)).toEqual(times)
})
