import { expect, test } from 'vitest'
import { createReconnects, PERHAPS_TAKEN_OVER, TAKEN_OVER } from './reconnects.js'

const TAKEN_OVER_CODE = 0x8e

/** Connections that live for `livedMs` each, one after the other. */
function live(times: number, livedMs: number, reasonCode?: number, messages = 0) {
  let now = 0
  const reconnects = createReconnects(() => now)
  return Array.from({ length: times }, () => {
    reconnects.connected()
    now += livedMs
    const ended = reconnects.ended(reasonCode, messages)
    now += ended.pauseMs
    return ended
  })
}

test('a broker that cannot be reached is tried again after a growing pause of at most about 5 s', () => {
  const reconnects = createReconnects(() => 0)
  const pauses = Array.from({ length: 20 }, () => reconnects.ended(undefined, 0))
  expect(pauses[0]?.pauseMs).toBeLessThan(200)
  expect(pauses.every(({ pauseMs, takeover }) => pauseMs <= 6300 && takeover === null)).toBe(true)
  expect(pauses.at(-1)?.pauseMs).toBeGreaterThan(3700)
})

test('taken over, as the broker says: said at once, and the pause grows to 15 s', () => {
  const ends = live(6, 500, TAKEN_OVER_CODE)
  expect(ends.every(({ takeover }) => takeover === TAKEN_OVER)).toBe(true)
  expect(ends[0]?.pauseMs).toBeLessThanOrEqual(1250)
  expect(ends.at(-1)?.pauseMs).toBeGreaterThanOrEqual(15_000 * 0.75)
})

test('ended without a word soon after connecting: suspected at the third time', () => {
  const ends = live(5, 500)
  expect(ends.map(({ takeover }) => takeover)).toEqual([null, null, ...Array(3).fill(PERHAPS_TAKEN_OVER)])
  expect(ends.at(-1)?.pauseMs).toBeGreaterThanOrEqual(5000 * 0.75)
})

test('a link that is cut and brings much is not kept waiting', () => {
  for (const { pauseMs } of live(20, 300, undefined, 5000)) expect(pauseMs).toBeLessThanOrEqual(1250)
})

test('connections that live long are no reason to suspect anybody, however often they end', () => {
  for (const { pauseMs, takeover } of live(10, 60_000)) {
    expect(takeover).toBeNull()
    expect(pauseMs).toBeLessThanOrEqual(1250)
  }
})

test('it is stable once it has outlived the pause that the other one may make too', () => {
  let now = 0
  const reconnects = createReconnects(() => now)
  expect(reconnects.isStable()).toBe(false)
  for (let time = 0; time < 10; time++) {
    reconnects.connected()
    reconnects.ended(TAKEN_OVER_CODE, 0)
  }
  reconnects.connected()
  now += 15_000 * 1.25
  expect(reconnects.isStable()).toBe(false)
  now += 10_000
  expect(reconnects.isStable()).toBe(true)
})
