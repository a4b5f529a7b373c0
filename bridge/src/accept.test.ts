import type { DeadLetter } from '@iot/shared/contract'
import type { OutgoingRecord } from '@iot/shared/outgoing'
import { register } from 'prom-client'
import { beforeEach, expect, test } from 'vitest'
import { createAccept } from './accept.js'
import type { Message } from './ack-window.js'

let published: OutgoingRecord[]
let letters: DeadLetter[]
let waiting: (() => void)[]
let stored: number
beforeEach(() => {
  published = []
  letters = []
  waiting = []
  stored = 0
  register.resetMetrics()
})

const create = (binary: 'dead-letter' | 'base64' = 'dead-letter') =>
  createAccept(
    { prefix: 'devices', maxPayloadBytes: 64, binary, timestamp: () => '1678886400' },
    {
      publish: (record, onStored) => {
        published.push(record)
        waiting.push(onStored)
      },
      deadLetter: (letter, onStored) => {
        letters.push(letter)
        waiting.push(onStored)
      },
    },
  )
const message = (topic: string, payload: string | Buffer, more: Partial<Message> = {}): Message => {
  const bytes = Buffer.from(payload)
  return { topic, payload: bytes, isRetained: false, sentBytes: bytes.length, ...more }
}
const onStored = () => {
  stored++
}
const count = async (name: string, labels = {}) => {
  const { values } = (await register.getSingleMetric(name)?.get()) ?? { values: [] }
  return values.find((value) => JSON.stringify(value.labels) === JSON.stringify(labels))?.value ?? 0
}

test('a reading becomes a record, and is stored when the publisher says so', () => {
  create()(message('devices/a/data', '{"t":1.10}'), onStored)
  expect(published).toEqual([
    {
      deviceId: 'a',
      value: '{"device_id":"a","payload":{"t":1.10},"timestamp":1678886400}',
      source: 'devices/a/data',
      original: Buffer.from('{"t":1.10}'),
    },
  ])
  expect(stored).toBe(0)
  for (const done of waiting) done()
  expect(stored).toBe(1)
})

test('what cannot be a record becomes a dead letter with what came and where from', () => {
  const accept = create()
  accept(message('devices//data', '1'), onStored)
  accept(message('devices/a/data', ''), onStored)
  accept(message('devices/a/data', Buffer.from([0xff])), onStored)
  accept(message('devices/a/data', 'beginning', { sentBytes: 250_000_000 }), onStored)
  expect(letters).toMatchObject([
    { reason: 'invalid_device_id', source: 'devices//data' },
    { reason: 'empty_payload', deviceId: 'a' },
    { reason: 'not_utf8', deviceId: 'a', value: Buffer.from([0xff]), valueBytes: 1 },
    { reason: 'too_large', deviceId: 'a', value: Buffer.from('beginning'), valueBytes: 250_000_000 },
  ])
  expect([published.length, stored]).toEqual([0, 0])
})

test.each([
  'other/a/data',
  'devices/a/hello',
  'devices/a/commands',
  'devices/a/b/data',
])('%s is acknowledged, ignored and counted', async (topic) => {
  create()(message(topic, '1'), onStored)
  expect([published.length, letters.length, stored]).toEqual([0, 0, 1])
  expect(await count('iot_mqtt_ignored_messages_total', { reason: 'unexpected_topic' })).toBe(1)
})

test('a retained message is a replay: ignored and counted', async () => {
  create()(message('devices/a/data', '1', { isRetained: true }), onStored)
  expect([published.length, letters.length, stored]).toEqual([0, 0, 1])
  expect(await count('iot_mqtt_ignored_messages_total', { reason: 'retained' })).toBe(1)
})

test('text that is no JSON is counted; binary is base64 where that is wanted', async () => {
  const accept = create('base64')
  for (const payload of ['1', '{"t":nan}', '{"t":', Buffer.from([1, 0x67])]) {
    accept(message('devices/a/data', payload), onStored)
  }
  expect(published.map(({ value }) => JSON.parse(value).payload)).toEqual([1, '{"t":nan}', '{"t":', 'AWc='])
  expect(await count('iot_text_payloads_total')).toBe(2)
  expect(await count('iot_binary_payloads_total')).toBe(1)
})
