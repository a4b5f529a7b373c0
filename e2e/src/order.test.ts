// TIMESTAMP_PRECISION=us: every reading stays, in the order in which it came, also those of an outage that come at once.
import { historyKey, lastStateKey } from '@iot/shared/contract'
import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import { createPlatform, eventually, type Platform } from './platform.js'

let platform: Platform
beforeAll(async () => {
  platform = await createPlatform({ kafka: inject('kafkaPort'), redis: inject('redisPort'), mqtt: inject('mqttPort') })
  await Promise.all([
    platform.bridge.start({ TIMESTAMP_PRECISION: 'us', PRESENCE_FROM: 'hello,data' }),
    platform.consumer.start(),
  ])
  await Promise.all([platform.bridge.ready(), platform.consumer.ready()])
})
afterAll(() => platform.down())

const history = async (id: string) =>
  (await platform.redis.zrange(historyKey(id), '0', '-1')).map((text) => JSON.parse(text).payload)
const send = async (id: string, payloads: string[]) => {
  const device = await platform.device()
  const topic = `${platform.prefix}/${id}/data`
  await Promise.all(payloads.map((payload) => device.publishAsync(topic, payload, { qos: 1 })))
}

test('events of one moment are read back as they were sent, equal ones too', async () => {
  const id = platform.id('events')
  const steps = Array.from({ length: 12 }, (_, index) => ({ event: 'step', n: index + 1 }))
  const presses = Array.from({ length: 3 }, () => ({ button: 'pressed' }))
  await send(
    id,
    [...steps, ...presses].map((event) => JSON.stringify(event)),
  )
  await eventually(async () => (await platform.redis.zcard(historyKey(id))) === 15, 'all of them')
  expect(await history(id)).toEqual([...steps, ...presses])
})

test('the record, the state and the score carry the same six decimals', async () => {
  const id = platform.id('digits')
  await send(id, ['1'])
  const timestamp = await eventually(() => platform.redis.hget(lastStateKey(id), 'timestamp'), 'the state')
  expect(timestamp).toMatch(/^\d{10}\.\d{6}$/)
  const [member, score] = await platform.redis.zrange(historyKey(id), '0', '-1', 'WITHSCORES')
  expect(member).toBe(`{"device_id":"${id}","payload":1,"timestamp":${timestamp}}`)
  expect(Number(score)).toBe(Number(timestamp))
})

test('what a bridge missed comes at once, and all of it stays in order', async () => {
  const [constant, ramp] = [platform.id('constant'), platform.id('ramp')]
  const ramps = Array.from({ length: 117 }, (_, index) => (20 + ((index * 7) % 10) / 10).toFixed(1))
  platform.bridge.signal('SIGSTOP')
  await send(
    constant,
    Array.from({ length: 117 }, () => '{"temperature":21.5}'),
  )
  await send(ramp, ramps)
  platform.bridge.signal('SIGCONT')
  await eventually(async () => (await platform.redis.zcard(historyKey(ramp))) === 117, 'the ramp')
  await eventually(async () => (await platform.redis.zcard(historyKey(constant))) === 117, 'the constant')
  expect(await history(ramp)).toEqual(ramps.map(Number))
  expect(await platform.redis.hget(lastStateKey(ramp), 'payload')).toBe(ramps.at(-1))
})

test('with PRESENCE_FROM=hello,data a reading puts its device online', async () => {
  const id = platform.id('talker')
  await send(id, ['1'])
  await eventually(async () => {
    const online = (await (await fetch(`${platform.bridge.url}/devices`)).json()) as string[]
    return online.includes(id)
  }, 'online')
})
