import { expect, test } from 'vitest'
import { createPresence } from './presence.js'

test('online until the timeout has passed since the last hello, and sorted', () => {
  let now = 0
  const presence = createPresence(60, 10, () => now)
  presence.seen('b')
  presence.seen('a')
  now = 30_000
  presence.seen('b')
  now = 60_000
  expect(presence.list()).toEqual(['a', 'b'])
  now = 60_001
  expect(presence.list()).toEqual(['b'])
  expect(presence.isOnline('a')).toBe(false)
  now = 90_001
  expect(presence.list()).toEqual([])
})

test('past the limit new devices are refused, known ones are not', () => {
  let now = 0
  const presence = createPresence(60, 2, () => now)
  for (const id of ['a', 'b', 'c', 'a']) presence.seen(id)
  expect(presence.list()).toEqual(['a', 'b'])
  now = 61_000
  presence.seen('c')
  expect(presence.list()).toEqual(['c'])
})
