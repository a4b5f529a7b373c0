import fc from 'fast-check'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import { createPresence } from './presence.js'

const silent = pino({ level: 'silent' })
const TIMEOUT_MS = 60_000

function create(maxDevices = 10, offlinePayload?: string, logger = silent) {
  const clock = { ms: 0 }
  const presence = createPresence({ timeoutSeconds: 60, maxDevices, offlinePayload }, logger, () => clock.ms)
  return { presence, clock }
}

test('online until the timeout has passed since the last sign of life, and sorted', () => {
  const { presence, clock } = create()
  presence.seen('b')
  presence.seen('a')
  clock.ms = 30_000
  presence.seen('b')
  clock.ms = 60_000
  expect(presence.list()).toEqual(['a', 'b'])
  clock.ms = 60_001
  expect(presence.list()).toEqual(['b'])
  expect(presence.isOnline('a')).toBe(false)
  expect(presence.lastSeen('a')).toBe(null)
  expect(presence.lastSeen('b')).toBe(Math.floor((Date.now() - 30_001) / 1000))
  clock.ms = 90_001
  expect(presence.list()).toEqual([])
})

test('past the limit new devices are refused, known ones are not', () => {
  const { presence } = create(2)
  expect(['a', 'b', 'c', 'a'].map(presence.seen)).toEqual(['seen', 'seen', 'refused', 'seen'])
  expect(presence.list()).toEqual(['a', 'b'])
})

test('strangers who knock all the time do not get the place of a device that renews too late', () => {
  const { presence, clock } = create(3)
  for (const id of ['a', 'b', 'gone']) presence.seen(id)
  const strangers = (count: number) => {
    for (let id = 0; id < count; id++) presence.seen(`stranger-${clock.ms}-${id}`)
  }
  for (let renewals = 0; renewals < 20; renewals++) {
    for (const waitMs of [TIMEOUT_MS, TIMEOUT_MS - 1]) {
      clock.ms += waitMs
      strangers(10)
    }
    // just within twice the timeout: offline for a whole one already
    expect(presence.isOnline('a')).toBe(false)
    expect(['a', 'b'].map(presence.seen)).toEqual(['seen', 'seen'])
    expect(presence.list()).toEqual(expect.arrayContaining(['a', 'b']))
    expect(presence.list().length).toBeLessThanOrEqual(3)
  }
})

test('a place is free again once its device was offline for a timeout', () => {
  const { presence, clock } = create(1)
  presence.seen('a')
  clock.ms = 2 * TIMEOUT_MS
  expect(presence.seen('b')).toBe('refused')
  clock.ms += 1000
  expect(presence.seen('b')).toBe('seen')
  expect(presence.list()).toEqual(['b'])
})

test('a device that lost its place and comes back is listed once', () => {
  const { presence, clock } = create(1)
  presence.seen('a')
  expect(presence.list()).toEqual(['a'])
  clock.ms = 2 * TIMEOUT_MS + 1
  presence.seen('b')
  clock.ms += 2 * TIMEOUT_MS + 1001
  presence.seen('a')
  expect(presence.list()).toEqual(['a'])
})

test('ids are bounded in bytes, whatever their number', () => {
  const clock = { ms: 0 }
  const presence = createPresence({ timeoutSeconds: 60, maxDevices: 100, maxIdBytes: 10 }, silent, () => clock.ms)
  expect(['aaa', 'ééé', 'bb', 'a'].map(presence.seen)).toEqual(['seen', 'seen', 'refused', 'seen'])
  clock.ms = 3 * TIMEOUT_MS
  expect(presence.seen('0123456789')).toBe('seen')
  expect(presence.seen('x')).toBe('refused')
})

test('a hello with the offline payload, and with exactly that, takes the device offline at once', () => {
  const { presence } = create(1, 'offline')
  const hello = (payload: string) => presence.hello('a', Buffer.from(payload))
  for (const payload of ['', 'online', 'Offline', 'offline ', 'offlin']) expect(hello(payload)).toBe('seen')
  expect(presence.isOnline('a')).toBe(true)
  expect(hello('offline')).toBe('offline')
  expect(presence.isOnline('a')).toBe(false)
  expect(presence.list()).toEqual([])
  expect(presence.seen('stranger')).toBe('refused')
  expect(hello('')).toBe('seen')
  expect(presence.list()).toEqual(['a'])
  const { presence: other } = create(1, 'offline')
  expect(other.hello('a', Buffer.from('offline'))).toBe('offline')
  expect(other.list()).toEqual([])
})

test('without such a payload no hello does', () => {
  const { presence } = create()
  expect(presence.hello('a', Buffer.from('offline'))).toBe('seen')
  expect(presence.isOnline('a')).toBe(true)
})

test('a full room is logged once, not for each who is refused', () => {
  const lines: string[] = []
  const { presence } = create(1, undefined, pino({}, { write: (line) => void lines.push(line) }))
  for (let index = 0; index < 100; index++) presence.seen(`stranger-${index}`)
  expect(lines).toHaveLength(1)
  expect(JSON.parse(lines[0] as string)).toMatchObject({ online: 1, maxDevices: 1, level: 40 })
})

test('the list is what a plain sort of those online would be, and the same array while nobody comes or goes', () => {
  const step = fc.record({
    id: fc.constantFrom('a', 'b', 'B', 'é', '10', '9'),
    waitMs: fc.nat(100_000),
    leaves: fc.boolean(),
    look: fc.boolean(),
  })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const { presence, clock } = create(100, 'offline')
      const hellos = new Map<string, number>()
      for (const { id, waitMs, leaves, look } of steps) {
        clock.ms += waitMs
        presence.hello(id, Buffer.from(leaves ? 'offline' : ''))
        if (leaves) hellos.delete(id)
        else hellos.set(id, clock.ms)
        if (!look) continue
        const online = [...hellos].filter(([, at]) => clock.ms - at <= TIMEOUT_MS).map(([known]) => known)
        expect(presence.list()).toEqual(online.sort())
        expect(presence.list()).toBe(presence.list())
      }
    }),
  )
})

test('whoever follows the changes has the list, and whoever is too far behind is told', () => {
  const step = fc.record({ id: fc.nat(9), waitMs: fc.nat(70_000), leaves: fc.boolean(), look: fc.boolean() })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const { presence, clock } = create(5, 'offline')
      const followed = new Set<string>()
      let version = presence.version()
      for (const { id, waitMs, leaves, look } of steps) {
        clock.ms += waitMs
        presence.hello(`device-${id}`, Buffer.from(leaves ? 'offline' : ''))
        if (!look) continue
        const changes = presence.changesSince(version)
        for (const gone of changes?.offline ?? []) followed.delete(gone)
        for (const come of changes?.online ?? []) followed.add(come)
        version = changes?.version ?? ''
        expect([...followed].sort()).toEqual(presence.list())
        expect(presence.changesSince(version)).toEqual({ version, online: [], offline: [] })
      }
    }),
  )
  const { presence, clock } = create(100_000)
  const start = presence.version()
  for (let id = 0; id < 6000; id++) presence.seen(`device-${id}`)
  expect(presence.changesSince(start)?.online).toHaveLength(6000)
  clock.ms = TIMEOUT_MS + 1
  expect(presence.changesSince(start)).toBe(null)
  for (const other of ['', '0', `${start}0`, start.replace(/-.*/, '-'), create().presence.version()])
    expect(presence.changesSince(other), other).toBe(null)
})
