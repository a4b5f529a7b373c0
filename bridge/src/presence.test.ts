import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createHello, createPresence } from './presence.js'

const quiet = { warn: () => {} }

test('online until the timeout has passed since the last hello, and sorted', () => {
  let now = 0
  const presence = createPresence(60, 10, quiet, () => now)
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
  const presence = createPresence(60, 2, quiet, () => now)
  for (const id of ['a', 'b', 'c', 'a']) presence.seen(id)
  expect(presence.list()).toEqual(['a', 'b'])
  now = 61_000
  presence.seen('c')
  expect(presence.list()).toEqual(['c'])
})

test('the list is what a plain sort of those online would be, and the same array while nobody comes or goes', () => {
  const step = fc.record({
    id: fc.constantFrom('a', 'b', 'B', 'é', '10', '9'),
    waitMs: fc.nat(40_000),
    look: fc.boolean(),
  })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      let now = 0
      const presence = createPresence(60, 100, quiet, () => now)
      const hellos = new Map<string, number>()
      for (const { id, waitMs, look } of steps) {
        now += waitMs
        presence.seen(id)
        hellos.set(id, now)
        if (!look) continue
        const online = [...hellos].filter(([, at]) => now - at <= 60_000).map(([known]) => known)
        expect(presence.list()).toEqual(online.sort())
        expect(presence.list()).toBe(presence.list())
      }
    }),
  )
})

test('the limit is said once a minute, and counts the bytes of ids too', () => {
  let now = 0
  const lines: unknown[] = []
  const presence = createPresence(3600, 200_000, { warn: (...line: unknown[]) => lines.push(line) }, () => now)
  for (let index = 0; index < 130_000; index++) presence.seen(`${index}${'x'.repeat(250)}`)
  expect(presence.list().length).toBeLessThan(128_000)
  expect(lines).toHaveLength(1)
  now = 60_000
  presence.seen(`late${'x'.repeat(250)}`)
  presence.seen(`0${'x'.repeat(250)}`)
  expect(lines).toHaveLength(2)
  expect(presence.isOnline(`0${'x'.repeat(250)}`)).toBe(true)
})

test('a hello with the offline payload, such as a last will, takes the device offline at once', () => {
  const presence = createPresence(60, 10, quiet)
  const hello = createHello(presence, 'bye')
  hello('a', Buffer.from('hi'))
  hello('b', Buffer.from(''))
  hello('a', Buffer.from('bye'))
  hello('c', Buffer.from('bye'))
  expect(presence.list()).toEqual(['b'])
  const plain = createHello(presence, undefined)
  plain('a', Buffer.from('bye'))
  expect(presence.list()).toEqual(['a', 'b'])
})
