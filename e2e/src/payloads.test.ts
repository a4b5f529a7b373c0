// Whatever a device sends comes out as it went in: JSON text untouched, other text as a JSON string, other bytes as a
// dead letter. PAYLOADS names a file of more payloads to try, one {"payload_b64"} a line.
import { isUtf8 } from 'node:buffer'
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import { createPlatform, eventually, type Platform } from './platform.js'

let platform: Platform
beforeAll(async () => {
  platform = await createPlatform({ kafka: inject('kafkaPort'), redis: inject('redisPort'), mqtt: inject('mqttPort') })
  await platform.up()
})
afterAll(() => platform.down())

const own = [
  '12345678901234567890',
  '1.10',
  '-0.0e-7',
  '1e400',
  'null',
  '""',
  '"\\u0000\\ud800"',
  '{"a":1,"a":2,"__proto__":{"x":[]}}',
  ' \t\r\n{ "spaced" : [ 1 , 2 ] }\n',
  '{"payload":1,"timestamp":2}',
  '","timestamp":1}',
  `${'['.repeat(2000)}${']'.repeat(2000)}`,
  'temperature=21.5',
  "{'single': quotes}",
  'NaN',
  '01',
  '{"open":',
  '\u2028 line separator',
  'Привет 👋',
  '\ufeff{"bom":true}',
].map((text) => Buffer.from(text))
const binary = [
  ...[[0xff], [0xc3, 0x28], [0xed, 0xa0, 0x80], [0, 1, 2, 0xfe]].map((bytes) => Buffer.from(bytes)),
  ...['text with \u0000', '\u0001g\u0000\u0010', '{"t":1}\u0000'].map((text) => Buffer.from(text)),
]
const given = process.env.PAYLOADS
  ? readFileSync(process.env.PAYLOADS, 'utf8')
      .trim()
      .split('\n')
      .map((line) => Buffer.from(JSON.parse(line).payload_b64, 'base64'))
  : []

const isJson = (text: string) => {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

/** A control character that no text has. */
const isNotText = (byte: number) => byte < 0x20 && ![0x09, 0x0a, 0x0d].includes(byte)

test(`${own.length + binary.length + given.length} payloads come out as they went in`, async () => {
  const { prefix, topic, redis } = platform
  const device = await platform.device()
  const payloads = [...own, ...binary, ...given].map((bytes, index) => ({ id: platform.id(`p${index}`), bytes }))
  await Promise.all(payloads.map(({ id, bytes }) => device.publishAsync(`${prefix}/${id}/data`, bytes, { qos: 1 })))
  const isGood = (bytes: Buffer) => bytes.length > 0 && isUtf8(bytes) && !bytes.some(isNotText)
  const good = payloads.filter(({ bytes }) => isGood(bytes))
  const bad = payloads.filter(({ bytes }) => !isGood(bytes))

  const records = new Map((await platform.records(good.length)).map((record) => [String(record.key), record]))
  await eventually(async () => (await platform.lag()) === 0, 'lag 0')
  for (const { id, bytes } of good) {
    const text = bytes.toString()
    const expected = isJson(text) ? text : JSON.stringify(text)
    const [payload, timestamp] = await redis.hmget(`device:last_state:${id}`, 'payload', 'timestamp')
    expect(payload).toBe(expected)
    const message = `{"device_id":"${id}","payload":${expected},"timestamp":${timestamp}}`
    expect(String(records.get(id)?.value)).toBe(message)
    expect(await redis.zrange(`device:history:${id}`, '0', '-1')).toEqual([message])
  }
  const letters = await platform.records(bad.length, `${topic}-dlq`)
  expect(letters.map(({ key, value }) => [String(key), value?.toString('hex')]).sort()).toEqual(
    bad.map(({ id, bytes }) => [id, bytes.toString('hex')]).sort(),
  )
})
