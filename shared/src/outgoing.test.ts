// Readings and dead letters on their way to Kafka, and what becomes of those that are too large: without a server.
import { expect, test } from 'vitest'
import { createPacker } from './outgoing.js'

const stored = () => {}
const packer = () => createPacker({ topic: 't', service: 'tests', maxBytes: 1000, nowMs: () => 1_700_000_000_900 })
const letterOf = (size: number) => ({ reason: 'not_utf8' as const, source: 'a/b', value: Buffer.alloc(size, 'x') })
const reading = { deviceId: 'a', value: '{"é":1}', source: 'devices/a/data', original: Buffer.from('1') }

test('a reading goes to its topic, by its device', () => {
  const item = packer().reading(reading, stored)
  expect(item).toEqual({ topic: 't', key: 'a', bytes: 308, onStored: stored, record: item.record })
  expect(item.record).toMatchObject({ key: 'a', value: '{"é":1}' })
})

test('a dead letter goes to partition 0 of its own topic, with headers that say what it is', () => {
  const { topic, key, record } = packer().letter({ ...letterOf(10), deviceId: 'a' }, stored)
  expect([topic, key, record.key]).toEqual(['t-dlq', null, 'a'])
  expect(record.headers).toEqual({ reason: 'not_utf8', source: 'a/b', service: 'tests', timestamp: '1700000000' })
  const empty = packer().letter({ reason: 'empty_payload', source: 'x'.repeat(5000), value: null }, stored)
  expect([empty.record.value, empty.record.headers?.source?.length]).toEqual([null, 1000])
})

test('what came cut, or is larger than a batch may be, says how large it was', () => {
  const cut = packer().letter({ ...letterOf(10), valueBytes: 5_000_000 }, stored)
  expect(cut.record.headers?.truncated_from).toBe('5000000')
  const large = packer().letter(letterOf(2500), stored)
  expect([large.record.value?.length, large.record.headers?.truncated_from]).toEqual([1000, '2500'])
})

test('a reading that Kafka refuses for its size becomes a dead letter of the payload as it came', () => {
  const one = packer()
  const original = Buffer.alloc(600, 'y')
  const { topic, record, onStored } = one.smaller(one.reading({ ...reading, original }, stored))
  expect([topic, record.headers?.reason, onStored]).toEqual(['t-dlq', 'too_large', stored])
  expect(record.value).toEqual(original)
})

test('a dead letter is halved until it fits; the next large one begins there', () => {
  const one = packer()
  let item = one.letter(letterOf(900), stored)
  for (const bytes of [450, 225, 112]) {
    item = one.smaller(item)
    expect(item.record.value?.length).toBe(bytes)
  }
  expect(item.record.headers?.truncated_from).toBe('900')
  expect(one.letter(letterOf(900), stored).record.value?.length).toBe(900) // not cut before Kafka has refused it
  expect(one.letter(letterOf(5000), stored).record.value?.length).toBe(112)
})
