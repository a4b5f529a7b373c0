// Whatever arrives is either a message whose payload is what was sent, or a dead letter; nothing throws.
import { isUtf8 } from 'node:buffer'
import { decodeMessage, isDeviceId } from '@iot/shared/contract'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { ingest } from './ingest.js'

const MAX_BYTES = 2000
const bytes = fc.oneof(
  fc.uint8Array({ maxLength: 2 * MAX_BYTES }).map((array) => Buffer.from(array)),
  fc.string({ unit: 'binary', maxLength: 500 }).map((text) => Buffer.from(text)),
)

/** JSON texts that JSON.stringify would not write: huge numbers, the same key twice, lone surrogates, white space. */
const odd = fc.constantFrom(
  '12345678901234567890',
  '1.10',
  '-0',
  '1e999',
  '{"a":1,"a":2}',
  '{"__proto__":{"x":1},"constructor":null}',
  '"\\ud800"',
  '"\\u0000"',
  '{"payload":1,"timestamp":2}',
)
const space = fc.stringMatching(/^[ \t\r\n]{0,3}$/)
const json = fc.oneof(
  fc.json({ stringUnit: 'binary' }),
  odd,
  fc.tuple(fc.json(), odd).map(([first, second]) => `[${first},${second}]`),
  fc.tuple(fc.string(), odd).map(([key, value]) => `{${JSON.stringify(key)}:${value}}`),
  fc.integer({ min: 1, max: 900 }).map((depth) => `${'['.repeat(depth)}${']'.repeat(depth)}`),
)
const deviceId = fc.string({ unit: 'grapheme', maxLength: 100 }).filter(isDeviceId)

test('any bytes of any device', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), bytes, (topic, payload) => {
      const result = ingest(topic, payload, MAX_BYTES, '1')
      if (result.ok) {
        const message = decodeMessage(Buffer.from(result.deviceId), Buffer.from(result.value))
        const text = payload.toString()
        expect(message?.deviceId).toBe(result.deviceId)
        expect([text, JSON.stringify(text)]).toContain(message?.payload)
      } else if (result.reason === 'not_utf8') {
        const isPlain = isUtf8(payload) && !payload.some((byte) => byte < 0x20 && ![9, 10, 13].includes(byte))
        expect(isPlain).toBe(false)
      }
    }),
    { numRuns: 1000 },
  )
})

test('any JSON is carried as its own text', () => {
  fc.assert(
    fc.property(deviceId, space, json, space, fc.nat(), (id, before, value, after, timestamp) => {
      const text = before + value + after
      const result = ingest(id, Buffer.from(text), 100_000, String(timestamp))
      if (!result.ok) throw new Error(result.reason)
      const message = decodeMessage(Buffer.from(id), Buffer.from(result.value))
      expect(message).toEqual({
        deviceId: id,
        payload: text,
        timestamp: String(timestamp),
        seconds: timestamp,
        text: result.value,
      })
    }),
    { numRuns: 1000 },
  )
})

test('nesting as deep as a payload can be', () => {
  const text = `${'['.repeat(131_072)}${']'.repeat(131_072)}`
  const result = ingest('deep', Buffer.from(text), 262_144, '1')
  if (!result.ok) throw new Error(result.reason)
  expect(decodeMessage(Buffer.from('deep'), Buffer.from(result.value))?.payload).toBe(text)
})
