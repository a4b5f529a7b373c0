import { expect, test } from 'vitest'
import { createPulse, LOOK_MS, type Pulse } from './pulse.js'

/** Looks for `ms`, and returns what was to be sent and found; `each` answers for the broker. */
function watch(
  pulse: Pulse,
  ms: number,
  each: (sent: { ping: boolean; canary: boolean }) => void = () => {},
  held = false,
) {
  let pings = 0
  let canaries = 0
  for (let at = LOOK_MS; at <= ms; at += LOOK_MS) {
    const { ping, canary, problem } = pulse.look(held)
    if (ping) pings++
    if (canary) canaries++
    if (problem !== null) return { pings, canaries, problem, atMs: at }
    each({ ping, canary })
  }
  return { pings, canaries, problem: null, atMs: ms }
}
const answerAll = (pulse: Pulse) => (sent: { ping: boolean; canary: boolean }) => {
  if (sent.ping || sent.canary) pulse.onBytes()
  if (sent.canary) pulse.onMessage(true)
}
const answerPings = (pulse: Pulse) => (sent: { ping: boolean }) => sent.ping && pulse.onBytes()

test('a healthy connection without messages is pinged every 5 s, and its canary flies at first and after each third', () => {
  const pulse = createPulse(30_000)
  pulse.canarySubscribed()
  const seen = watch(pulse, 60_000, answerAll(pulse))
  expect(seen).toMatchObject({ pings: 12, problem: null })
  expect(seen.canaries).toBe(6)
})

test('a frozen broker is found within 10 s', () => {
  const pulse = createPulse(30_000)
  pulse.canarySubscribed()
  watch(pulse, 20_000, answerAll(pulse))
  expect(watch(pulse, 60_000)).toMatchObject({ problem: 'silent' })
  expect(watch(createPulse(0), 60_000).atMs).toBe(10_000)
})

test('bytes are life: a message that takes a minute to arrive is no silence', () => {
  const pulse = createPulse(0)
  pulse.canarySubscribed()
  expect(watch(pulse, 60_000, () => pulse.onBytes()).problem).toBeNull()
})

test('what we hold back ourselves is no silence, and is pinged on', () => {
  const pulse = createPulse(30_000)
  pulse.canarySubscribed()
  expect(watch(pulse, 60_000, () => {}, true)).toMatchObject({ problem: null, pings: 12, canaries: 0 })
  expect(watch(pulse, 60_000).atMs).toBe(10_000)
})

test('a broker that answers pings and delivers nothing is mute after the stall time, once its canary has come back', () => {
  const pulse = createPulse(30_000)
  pulse.canarySubscribed()
  watch(pulse, 5000, answerAll(pulse))
  const seen = watch(pulse, 120_000, answerPings(pulse))
  expect(seen.problem).toBe('mute')
  expect(seen.atMs).toBeGreaterThan(20_000)
  expect(seen.atMs).toBeLessThanOrEqual(30_000 + LOOK_MS)
})

test('messages of others keep it from being mute', () => {
  const pulse = createPulse(30_000)
  pulse.canarySubscribed()
  watch(pulse, 5000, answerAll(pulse))
  const seen = watch(pulse, 120_000, (sent) => {
    answerPings(pulse)(sent)
    pulse.onMessage(false)
  })
  expect(seen.problem).toBeNull()
})

test('a canary that never comes back is off, and said once; the connection stays', () => {
  const pulse = createPulse(30_000)
  pulse.canarySubscribed()
  expect(watch(pulse, 600_000, answerPings(pulse)).problem).toBeNull()
  expect(pulse.isCanaryOn).toBe(false)
  expect(pulse.takeCanaryOff()).toBe('it does not come back')
  expect(pulse.takeCanaryOff()).toBeNull()
})

test('a broker that ends the connection at the canary: off after the first time, after the second where it had worked', () => {
  const untried = createPulse(30_000)
  untried.canarySubscribed()
  expect(untried.look(false).canary).toBe(true)
  untried.ended(true)
  expect(untried.takeCanaryOff()).toContain('ends the connection')

  const tried = createPulse(30_000)
  tried.canarySubscribed()
  watch(tried, 60_000, answerAll(tried))
  tried.ended(false)
  for (const isOn of [true, false]) {
    tried.canarySubscribed()
    tried.look(false)
    tried.ended(true)
    expect(tried.isCanaryOn).toBe(isOn)
  }
})

test('a connection that ends by our own will, or long after the canary, is no verdict on it', () => {
  for (const [byBroker, waitMs] of [
    [false, 500],
    [true, 5000],
  ] as const) {
    const pulse = createPulse(30_000)
    pulse.canarySubscribed()
    watch(pulse, waitMs, answerPings(pulse))
    pulse.ended(byBroker)
    expect(pulse.isCanaryOn).toBe(true)
  }
})

test('a refused subscription turns it off', () => {
  const pulse = createPulse(30_000)
  pulse.canaryRefused()
  pulse.canarySubscribed()
  expect(watch(pulse, 60_000, answerPings(pulse)).canaries).toBe(0)
  expect(pulse.takeCanaryOff()).toContain('refuses')
})
