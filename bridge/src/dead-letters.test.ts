import type { KafkaMessage } from '@iot/shared/kafka/client'
import { expect, test } from 'vitest'
import { asLetter, restore, rowOf } from './dead-letters.js'

const letter = (headers: KafkaMessage['headers'], value: Buffer | null = Buffer.from('1'), key: string | null = 'd') =>
  asLetter({
    offset: '7',
    key: key === null ? null : Buffer.from(key),
    value,
    headers: headers as NonNullable<KafkaMessage['headers']>,
    timestamp: '1700000000999',
    attributes: 0,
  })
const options = { prefix: 'devices', maxPayloadBytes: 100, binary: 'dead-letter' as const }

test.each([
  undefined,
  '',
  'yesterday',
  '-1',
  '1e99',
  '99999999999999999999',
  'NaN',
  Buffer.from([0xff]),
])('a timestamp header of %s gives way to the time of Kafka', (timestamp) => {
  const found = letter(timestamp === undefined ? undefined : { timestamp })
  expect(rowOf(found).when).toBe('2023-11-14T22:13:20.000Z')
  expect(restore(found, options)).toEqual({ key: 'd', value: '{"device_id":"d","payload":1,"timestamp":1700000000}' })
})

test.each(['1600000000', '1600000000.123456'])('a timestamp header of %s is kept', (timestamp) => {
  const value = `{"device_id":"d","payload":1,"timestamp":${timestamp}}`
  expect(restore(letter({ timestamp }), options)).toEqual({ key: 'd', value })
})

test('a row is of bounded size, whatever somebody wrote to the topic', () => {
  const long = 'x'.repeat(1_000_000)
  const row = rowOf(letter({ reason: long, source: [long, long], truncated_from: long }, Buffer.from(long), long))
  expect(JSON.stringify(row).length).toBeLessThan(1500)
  expect(rowOf(letter({}, null, null))).toMatchObject({ device: '', bytes: 0, preview: '""' })
})

test('what cannot go back says why', () => {
  const problem = (...args: Parameters<typeof letter>) => restore(letter(...args), options)
  expect(problem({ reason: 'not_utf8' }, Buffer.from([0xff]))).toEqual({ problem: 'not_utf8' })
  expect(problem({ truncated_from: '500' })).toEqual({ problem: 'only the beginning of 500 bytes is here' })
  expect(problem({ reason: 'invalid_message' })).toEqual({ problem: 'not of the form of iot-data' })
  expect(problem({ source: 'devices//data' }, Buffer.from('1'), null)).toEqual({ problem: 'invalid_device_id' })
  expect(problem({ source: 'devices/a/data', timestamp: '1' }, Buffer.from('1'), null)).toMatchObject({ key: 'a' })
})

test('binary payloads go back where they are taken', () => {
  const binary = letter({ reason: 'not_utf8', timestamp: '1' }, Buffer.from([0xff]))
  const value = '{"device_id":"d","payload":"/w==","timestamp":1}'
  expect(restore(binary, { ...options, binary: 'base64' })).toEqual({ key: 'd', value })
})

test('a repair takes the place of the value, a device that of the key', () => {
  const cut = letter({ reason: 'too_large', truncated_from: '500', timestamp: '1' })
  const value = '{"device_id":"e","payload":2,"timestamp":1}'
  expect(restore(cut, { ...options, repaired: Buffer.from('2'), device: 'e' })).toEqual({ key: 'e', value })
})
