import { expect, test } from 'vitest'
import { createRate } from './rate.js'

test('a rate is that of the last ten seconds', () => {
  const rate = createRate()
  expect(rate.add(0, 1000)).toBe(null)
  expect(rate.add(1000, 1100)).toBe(100)
  for (let second = 2; second <= 10; second++) expect(rate.add(second * 1000, 1000 + second * 100)).toBe(100)
  for (let second = 11; second <= 20; second++) rate.add(second * 1000, 2000)
  expect(rate.add(21_000, 2000)).toBe(0)
})

test('a counter that began anew is no negative rate', () => {
  const rate = createRate()
  rate.add(0, 1_000_000)
  rate.add(1000, 1_000_050)
  expect(rate.add(2000, 30)).toBe(40)
  expect(rate.add(3000, 130)).toBe(60)
})

test('what is not known is null, and what came meanwhile is in no rate', () => {
  const rate = createRate()
  rate.add(0, 100)
  expect(rate.add(1000, null)).toBe(null)
  expect(rate.add(2000, 900)).toBe(null)
  expect(rate.add(3000, 910)).toBe(10)
})
