// A clock that jumps: no young reading leaves a history, and nobody goes offline.
import { historyKey, lastStateKey } from '@iot/shared/contract'
import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import { createPlatform, eventually, type Platform } from './platform.js'

const DAY_S = 86_400

let platform: Platform
beforeAll(async () => {
  platform = await createPlatform({ kafka: inject('kafkaPort'), redis: inject('redisPort'), mqtt: inject('mqttPort') })
  await platform.up()
})
afterAll(() => platform.down())

/** Runs a service with a clock that is `seconds` off, from `afterMs` after its start. */
const clock = (seconds: number, afterMs = 0) => {
  const code = `const now=Date.now,from=now()+${afterMs};Date.now=()=>now()+(now()<from?0:${seconds * 1000})`
  return { NODE_OPTIONS: `--import data:text/javascript,${encodeURIComponent(code)}` }
}

test.each([
  ['a day ahead', DAY_S],
  ['an hour back', -3600],
])("the consumer's clock is %s: what is younger than five hours stays", async (_name, seconds) => {
  const { redis, kafka, topic, consumer } = platform
  const id = platform.id(`clock${seconds}`)
  const now = Math.floor(Date.now() / 1000)
  const text = (timestamp: number) => `{"device_id":"${id}","payload":${timestamp},"timestamp":${timestamp}}`
  const young = [now - 17_000, now - 3000, now - 5].map(text)
  const producer = kafka.producer()
  await producer.connect()
  await producer.send({ topic, messages: young.map((value) => ({ key: id, value })) })
  await eventually(async () => (await redis.zcard(historyKey(id))) === 3, 'the history')
  expect(await consumer.stop()).toBe(0)
  await consumer.start(clock(seconds))
  await producer.send({ topic, messages: [{ key: id, value: text(now) }] })
  await producer.disconnect()
  await eventually(async () => (await redis.hget(lastStateKey(id), 'timestamp')) === String(now), 'the newest')
  await eventually(async () => (await platform.lag()) === 0, 'lag 0')
  expect(await redis.zrange(historyKey(id), '0', '-1')).toEqual([...young, text(now)])
})

test("the bridge's clock jumps a day while it runs: who is online stays online", async () => {
  const { bridge, redis, prefix } = platform
  const id = platform.id('present')
  expect(await bridge.stop()).toBe(0)
  await bridge.start(clock(DAY_S, 3000))
  await bridge.ready()
  const device = await platform.device()
  await device.publishAsync(`${prefix}/${id}/hello`, '', { qos: 1 })
  const devices = async () => (await fetch(`${bridge.url}/devices`)).json() as Promise<string[]>
  await eventually(async () => (await devices()).includes(id), 'online')
  const tomorrow = Math.floor(Date.now() / 1000) + DAY_S - 60
  await eventually(async () => {
    await device.publishAsync(`${prefix}/${id}/data`, '1', { qos: 1 })
    return Number(await redis.hget(lastStateKey(id), 'timestamp')) > tomorrow
  }, 'the clock has jumped')
  expect(await devices()).toContain(id)
})
