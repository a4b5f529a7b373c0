import { decodeMessage } from '@iot/shared/contract'
import { expect, test } from 'vitest'
import { deviceIdOf, ingest } from './ingest.js'

const at = 1678886400
const take = (payload: string | Buffer, deviceId = 'dev-1') => ingest(deviceId, Buffer.from(payload), 64, at)

test('JSON is spliced in as it came, numbers included', () => {
  expect(take('{"a":12345678901234567890,"b":1.10}')).toEqual({
    ok: true,
    deviceId: 'dev-1',
    value: '{"device_id":"dev-1","payload":{"a":12345678901234567890,"b":1.10},"timestamp":1678886400}',
  })
})

test.each([
  '21.5',
  '"x"',
  ' {"a": 1}\n',
  '{"timestamp":1}',
  '{"__proto__":1}',
  '"\\ud800"',
  '[[[[]]]]',
  'plain text',
  '\ufeff{}',
])('what the consumer reads is what the device sent: %s', (payload) => {
  const result = take(payload)
  if (!result.ok) throw new Error(result.reason)
  const message = decodeMessage(Buffer.from('dev-1'), Buffer.from(result.value))
  const isJson = !['plain text', '\ufeff{}'].includes(payload)
  expect(message?.payload).toBe(isJson ? payload : JSON.stringify(payload))
  expect(message?.timestamp).toBe(at)
})

test.each([
  ['invalid_device_id', '{}', ''],
  ['invalid_device_id', '{}', 'a\u0000'],
  ['invalid_device_id', '{}', 'é'.repeat(129)],
  ['empty_payload', '', 'dev-1'],
  ['not_utf8', Buffer.from([0xff]), 'dev-1'],
  ['too_large', 'x'.repeat(65), 'dev-1'],
])('%s', (reason, payload, deviceId) => {
  expect(take(payload, deviceId)).toMatchObject({ ok: false, reason })
})

test('the device id is the level between prefix and kind', () => {
  expect(deviceIdOf('devices/a b/data', 'devices')).toBe('a b')
  expect(deviceIdOf('site/1/devices//data', 'site/1/devices')).toBe('')
})
