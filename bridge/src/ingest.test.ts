import { decodeMessage } from '@iot/shared/contract'
import { expect, test } from 'vitest'
import { ingest } from './ingest.js'

const at = '1678886400'
const take = (payload: string | Buffer, deviceId = 'dev-1') => ingest(deviceId, Buffer.from(payload), 64, at)

test('JSON is spliced in as it came, numbers included', () => {
  expect(take('{"a":12345678901234567890,"b":1.10}')).toEqual({
    ok: true,
    deviceId: 'dev-1',
    value: '{"device_id":"dev-1","payload":{"a":12345678901234567890,"b":1.10},"timestamp":1678886400}',
    kind: 'json',
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

// Cayenne LPP: channel 1, temperature, tenths of a degree; some of the frames happen to be UTF-8
const frames = Array.from({ length: 601 }, (_, tenths) => Buffer.from([0x01, 0x67, tenths >> 8, tenths & 0xff]))

test('the frames of a sensor are all treated alike, whether their bytes happen to be UTF-8 or not', () => {
  const letters = frames.map((frame) => ingest('lpp', frame, 64, at))
  expect(new Set(letters.map((result) => !result.ok && result.reason))).toEqual(new Set(['not_utf8']))
  const values = frames.map((frame) => ingest('lpp', frame, 64, at, 'base64'))
  for (const [index, result] of values.entries()) {
    if (!result.ok) throw new Error(result.reason)
    expect(result.kind).toBe('binary')
    const base64 = frames[index]?.toString('base64')
    expect(decodeMessage(Buffer.from('lpp'), Buffer.from(result.value))?.payload).toBe(`"${base64}"`)
  }
})

test.each([
  ['tab, line feed and carriage return are text', 'a\tb\r\nc', 'text'],
  ['DEL and what is above are text', '\u007f\u0085', 'text'],
  ['what firmware prints for no number is text', '{"t":nan}', 'text'],
  ['escaped control characters are JSON', '"\\u0000"', 'json'],
])('%s', (_what, payload, kind) => {
  expect(take(payload)).toMatchObject({ ok: true, kind })
})

test.each([
  0, 1, 8, 11, 12, 14, 27, 31,
])('text with the control character %d is binary, JSON around it or not', (code) => {
  for (const payload of [`a${String.fromCharCode(code)}`, `{"t":1}${String.fromCharCode(code)}`]) {
    expect(take(payload)).toMatchObject({ ok: false, reason: 'not_utf8' })
  }
})

test('what would be larger than Kafka takes as a JSON string is a dead letter here', () => {
  const quotes = Buffer.alloc(600_000, '"')
  expect(ingest('a', quotes, 700_000, at)).toMatchObject({ ok: false, reason: 'too_large' })
  expect(ingest('a', quotes, 1_300_000, at)).toMatchObject({ ok: true })
  expect(ingest('a', Buffer.alloc(800_000, 0xff), 900_000, at, 'base64')).toMatchObject({ reason: 'too_large' })
  // JSON does not grow: what Kafka takes of it is Kafka's word
  expect(ingest('a', Buffer.from(`"${'x'.repeat(1_100_000)}"`), 2_000_000, at)).toMatchObject({ ok: true })
})

test('only the beginning of a payload is here: its size is that of the whole', () => {
  expect(ingest('a', Buffer.alloc(10), 64, at, 'dead-letter', 65)).toMatchObject({ ok: false, reason: 'too_large' })
})
