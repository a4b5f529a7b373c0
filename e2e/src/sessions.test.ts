// The broker's session with the bridge: cut again and again under a full window, and lost altogether.

import { lastStateKey } from '@iot/shared/contract'
import mqtt from 'mqtt'
import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import { createPlatform, eventually, type Platform } from './platform.js'
import { createProxy, type TcpProxy } from './proxy.js'

const MESSAGES = 200_000 // packet ids go round at 65,535
const CUT_EVERY = 5000
const PUBACK_BYTES = 4

let platform: Platform
let proxy: TcpProxy
beforeAll(async () => {
  proxy = await createProxy(inject('mqttPort'))
  platform = await createPlatform({ kafka: inject('kafkaPort'), redis: inject('redisPort'), mqtt: proxy.port })
  await platform.up()
})
afterAll(async () => {
  await platform?.down()
  await proxy?.close()
})

const connects = async () =>
  Number(/iot_mqtt_connects_total\{connection="ingestion"\} (\d+)/.exec(await platform.bridge.metrics())?.[1])

test(`${MESSAGES} messages with the connection cut every ${CUT_EVERY}: all there, in order`, async () => {
  const { prefix, bridge } = platform
  const id = platform.id('cut')
  const direct = await mqtt.connectAsync(`mqtt://127.0.0.1:${inject('mqttPort')}`)
  try {
    proxy.shape = { cut: { direction: 'up', afterBytes: CUT_EVERY * PUBACK_BYTES } }
    const CHUNK = 20_000
    for (let first = 0; first < MESSAGES; first += CHUNK) {
      const seqs = Array.from({ length: CHUNK }, (_, index) => first + index)
      await Promise.all(seqs.map((seq) => direct.publishAsync(`${prefix}/${id}/data`, String(seq), { qos: 1 })))
    }
    const newest = () => platform.redis.hget(lastStateKey(id), 'payload')
    await eventually(async () => (await newest()) === String(MESSAGES - 1), 'the last one', 180_000)
    proxy.shape = {}
    // a PUBACK that was lost with its connection brings its message again: what counts is each one's first time
    const firsts = new Set<number>()
    await platform.recordsFrom(new Map(), ({ value }) => firsts.add(JSON.parse(String(value)).payload))
    expect([...firsts].every((seq, index) => seq === index)).toBe(true)
    expect(firsts.size).toBe(MESSAGES)
    expect(await connects()).toBeGreaterThan(10)
    expect(await bridge.metrics()).toMatch(/iot_mqtt_redelivered_messages_total [1-9]/)
  } finally {
    await direct.endAsync(true)
  }
}, 300_000)

test('a broker that has lost the session is subscribed to again', async () => {
  const { prefix, run, redis, bridge } = platform
  const id = platform.id('again')
  await bridge.ready()
  const before = await connects()
  // a clean connection under the same id ends the bridge's and wipes the session
  const thief = await mqtt.connectAsync(`mqtt://127.0.0.1:${inject('mqttPort')}`, {
    clientId: `bridge-${run}`,
    clean: true,
  })
  await thief.endAsync()
  await eventually(async () => (await connects()) > before, 'it was thrown out and is back')
  await bridge.ready()
  const device = await platform.device()
  await device.publishAsync(`${prefix}/${id}/data`, '1', { qos: 1 })
  await eventually(async () => (await redis.hget(lastStateKey(id), 'payload')) === '1', 'the reading')
})
