import { expect, test } from 'vitest'
import { asLetter } from './dead-letters.js'

const letter = (value: Buffer | null, headers: Record<string, string> = {}) =>
  asLetter({
    key: Buffer.from('sim-1'),
    value,
    offset: '12',
    details: {
      timestampMs: 1_700_000_000_999,
      headers: new Map(Object.entries(headers).map(([name, text]) => [name, Buffer.from(text)])),
    },
  })

test('a letter as it is shown', () => {
  const headers = { reason: 'not_utf8', source: 'devices/sim-1/data', timestamp: '1700000001.5' }
  expect(letter(Buffer.from('x'), headers)).toEqual({
    offset: 12,
    timestamp: 1_700_000_000, // Kafka's, for the header holds none of ours
    reason: 'not_utf8',
    source: 'devices/sim-1/data',
    device_id: 'sim-1',
    bytes: 1,
    text: 'x',
  })
  expect(letter(null, { ...headers, timestamp: '1700000001.500000' })).toMatchObject({
    timestamp: 1_700_000_001.5,
    bytes: 0,
    text: '',
  })
})

test('of a large value the first 4 KB, without half a character; what is no text as base64', () => {
  expect(letter(Buffer.from(`a${'ü'.repeat(3000)}`))).toMatchObject({ bytes: 6001, text: `a${'ü'.repeat(2047)}` })
  expect(letter(Buffer.from('x'.repeat(10)), { truncated_from: '900000' })).toMatchObject({ bytes: 900_000 })
  const cut = Buffer.from('ü').subarray(0, 1) // at its end, not cut by us
  expect(letter(cut)).toMatchObject({ base64: cut.toString('base64') })
  const binary = Buffer.alloc(5000, 0xff)
  expect(letter(binary)).toMatchObject({ bytes: 5000, base64: binary.subarray(0, 4096).toString('base64') })
  expect(letter(Buffer.from('x'), { reason: 'r'.repeat(5000) }).reason).toHaveLength(1025)
})
