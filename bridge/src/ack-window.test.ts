import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type AckWindow, createAckWindow, type Held } from './ack-window.js'

const TOPIC = 'devices/a/data'
function add(window: AckWindow, text: string, packetId: number, qos: 0 | 1 | 2 = 1, topic = TOPIC): Held {
  const payload = Buffer.from(text)
  const state = { isRetained: false, sentBytes: payload.length, isStored: false, isUnacknowledged: false }
  const held = { topic, payload, packetId, qos, ...state }
  window.add(held)
  return held
}
const create = (messages = 100, bytes = 1e6) => createAckWindow({ messages, bytes })
const ids = (taken: Held[]) => taken.map(({ packetId }) => packetId)

test('what is stored is acknowledged in the order of arrival, whatever the order of storing', () => {
  const window = create()
  const [first, second, third] = [1, 2, 3].map((id) => add(window, String(id), id)) as [Held, Held, Held]
  window.stored(third)
  window.stored(second)
  expect(ids(window.takeAcknowledgeable())).toEqual([])
  window.stored(first)
  expect(ids(window.takeAcknowledgeable())).toEqual([1, 2, 3])
  expect(ids(window.takeAcknowledgeable())).toEqual([])
  expect([window.unstored, window.messages, window.bytes]).toEqual([0, 0, 0])
})

test('what is stored behind one that is not still fills the window', () => {
  const window = create(3)
  add(window, 'stuck', 1)
  for (const id of [2, 3]) window.stored(add(window, 'done', id))
  expect(window.unstored).toBe(1)
  expect(window.isFull).toBe(true)
})

test('bytes are those of topic and payload, and something for each message', () => {
  const window = create(1000, 10_000)
  for (let id = 1; !window.isFull; id++) add(window, 'x'.repeat(100), id)
  expect(window.messages).toBe(Math.ceil(10_000 / (100 + TOPIC.length + 200)))
  const longTopics = create(1000, 100_000)
  for (const id of [1, 2]) add(longTopics, '', id, 1, 't'.repeat(60_000))
  expect(longTopics.isFull).toBe(true)
})

test('QoS 0 takes room until it is stored, and is never acknowledged', () => {
  const window = create(1)
  const held = add(window, 'x', 0, 0)
  expect(window.isFull).toBe(true)
  window.stored(held)
  expect(window.isFull).toBe(false)
  expect(window.takeAcknowledgeable()).toEqual([])
})

test('a lost connection: nothing is acknowledged until it is delivered again', () => {
  const window = create()
  const stored = add(window, 'stored', 1)
  const waiting = add(window, 'waiting', 2)
  window.stored(stored)
  window.disconnected()
  expect(window.takeAcknowledgeable()).toEqual([])
  expect([window.unstored, window.messages]).toEqual([1, 1])
  expect(window.reclaim(1, true, stored.topic, Buffer.from('stored'))).toBe(stored)
  expect(window.reclaim(2, true, waiting.topic, Buffer.from('waiting'))).toBe(waiting)
  expect(ids(window.takeAcknowledgeable())).toEqual([1])
  window.stored(waiting)
  expect(ids(window.takeAcknowledgeable())).toEqual([2])
  expect(window.messages).toBe(0)
})

test.each<[string, number, boolean, string, string]>([
  ['another id', 2, true, 'devices/a/data', 'x'],
  ['another topic', 1, true, 'devices/b/data', 'x'],
  ['another payload', 1, true, 'devices/a/data', 'y'],
  ['no DUP flag', 1, false, 'devices/a/data', 'x'],
])('%s is another message', (_what, id, isDup, topic, payload) => {
  const window = create()
  add(window, 'x', 1)
  window.disconnected()
  expect(window.reclaim(id, isDup, topic, Buffer.from(payload))).toBeNull()
})

test('after the first new message nothing old is recognised, nor after a lost session', () => {
  for (const end of ['new', 'session'] as const) {
    const window = create()
    const held = add(window, 'x', 1)
    window.disconnected()
    if (end === 'new') expect(window.reclaim(9, false, held.topic, held.payload)).toBeNull()
    else window.forget()
    expect(window.reclaim(1, true, held.topic, held.payload)).toBeNull()
    window.stored(held) // its record arrives all the same
    expect([window.unstored, window.messages]).toEqual([0, 0])
    expect(window.takeAcknowledgeable()).toEqual([])
  }
})

test('broken promises throw', () => {
  const window = create()
  expect(() => add(window, 'x', 0)).toThrow('without a packet id')
  const held = add(window, 'x', 1)
  window.stored(held)
  expect(() => window.stored(held)).toThrow('twice')
})

// A broker that keeps what is not acknowledged and delivers it again, and a bridge that stores in any order.
const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('deliver' as const), qos: fc.constantFrom(0, 1, 1, 1, 2) }) },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('store' as const), index: fc.nat() }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('acknowledge' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('cut' as const), lostAcks: fc.nat(3) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('session lost' as const) }) },
)

test('against a naive broker: nothing acknowledged that is not stored, in order, nothing held twice', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
      const window = create(1e6, 1e9)
      let nextText = 0
      let nextId = 1
      let session: { id: number; text: string; qos: 1 | 2 }[] = [] // what the broker owes, in order
      const pending: Held[] = []
      const storedTexts = new Set<string>()
      const take = () => {
        const taken = window.takeAcknowledgeable()
        expect(ids(taken)).toEqual(session.slice(0, taken.length).map(({ id }) => id))
        for (const { payload } of taken) expect(storedTexts.has(String(payload))).toBe(true)
        return taken.length
      }
      const redeliver = () => {
        for (const { id, text, qos } of session) {
          if (!window.reclaim(id, true, TOPIC, Buffer.from(text))) pending.push(add(window, text, id, qos))
        }
      }
      for (const one of steps) {
        if (one.kind === 'deliver') {
          const text = String(nextText++)
          const qos = one.qos as 0 | 1 | 2
          const id = qos === 0 ? 0 : nextId++
          if (qos > 0) {
            expect(window.reclaim(id, false, TOPIC, Buffer.from(text))).toBeNull()
            session.push({ id, text, qos: qos as 1 | 2 })
          }
          pending.push(add(window, text, id, qos))
        } else if (one.kind === 'store' && pending.length > 0) {
          const [held] = pending.splice(one.index % pending.length, 1) as [Held]
          window.stored(held)
          storedTexts.add(String(held.payload))
        } else if (one.kind === 'acknowledge') {
          session = session.slice(take())
        } else if (one.kind === 'cut') {
          session = session.slice(Math.max(take() - one.lostAcks, 0))
          window.disconnected()
          redeliver()
        } else if (one.kind === 'session lost') {
          window.disconnected()
          window.forget()
          session = []
        }
        expect(new Set(pending.map(({ payload }) => String(payload))).size).toBe(pending.length)
        const stuck = session.filter(({ text }) => storedTexts.has(text)).length
        expect(window.unstored).toBe(pending.length)
        expect(window.messages).toBeGreaterThanOrEqual(pending.length)
        expect(window.messages).toBeLessThanOrEqual(pending.length + stuck)
      }
      for (const held of pending) {
        window.stored(held)
        storedTexts.add(String(held.payload))
      }
      expect(take()).toBe(session.length)
      expect([window.unstored, window.messages, window.bytes]).toEqual([0, 0, 0])
    }),
    { numRuns: 500 },
  )
})
