// A guard can be no device's key, and shares its device's slot, whatever the id.
import { createRequire } from 'node:module'
import { guardKey, historyKey, isDeviceId, lastStateKey, positionOf } from '@iot/shared/contract'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { FSYNC_KEY, PROBE_KEY } from './keys.js'

const slotOf = createRequire(import.meta.url)('cluster-key-slot') as (key: string) => number

const braced = fc.array(fc.constantFrom('{', '}', 'a', 'b', ':', 'offset', '{}', '}{', 'é'), { maxLength: 8 })
const id = fc.oneof(
  braced.map((parts) => parts.join('')),
  fc.string({ unit: 'grapheme', maxLength: 20 }),
)
const deviceId = id.filter(isDeviceId)

test.each([
  'a',
  '{b}',
  '{b}:offset',
  'a}b',
  'a}b{c',
  '{}x{y}',
  '}{',
  '{{a}}',
  '{a',
  'a{}b',
])('the guard of %s is in the slot of its last_state', (id) =>
  expect(slotOf(guardKey(id))).toBe(slotOf(lastStateKey(id))))

test('the guard is in the slot of its last_state, for any id', () => {
  fc.assert(
    fc.property(deviceId, (id) => {
      expect(slotOf(guardKey(id))).toBe(slotOf(lastStateKey(id)))
    }),
    { numRuns: 5000 },
  )
})

test('no two keys are the same, whatever the ids', () => {
  const keysOf = (id: string) => [lastStateKey(id), historyKey(id), guardKey(id)]
  fc.assert(
    fc.property(fc.uniqueArray(deviceId, { minLength: 2, maxLength: 20 }), (ids) => {
      const keys = [PROBE_KEY, FSYNC_KEY, ...ids.flatMap(keysOf)]
      expect(new Set(keys).size).toBe(keys.length)
    }),
    { numRuns: 2000 },
  )
  // an id made to look like a key of the consumer's own
  const ids = ['{b}', '{b}:offset', 'x', guardKey('x'), PROBE_KEY, FSYNC_KEY]
  const keys = [PROBE_KEY, FSYNC_KEY, ...ids.flatMap(keysOf)]
  expect(new Set(keys).size).toBe(keys.length)
})

test('positions compare as text in the order of timestamp, partition, offset', () => {
  const number = fc.nat({ max: 999_999 })
  fc.assert(
    fc.property(fc.tuple(number, number, number), fc.tuple(number, number, number), (a, b) => {
      const text = ([timestamp, partition, offset]: [number, number, number]) =>
        positionOf(timestamp, partition, String(offset))
      const order = a[0] - b[0] || a[1] - b[1] || a[2] - b[2]
      expect(Math.sign(Number(text(a) > text(b)) - Number(text(a) < text(b)))).toBe(Math.sign(order))
    }),
  )
})
