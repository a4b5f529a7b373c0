// The broker's session with the bridge: cut again and again under a full window, and lost altogether.

import { lastStateKey } from '@iot/shared/contract'
import mqtt, { type MqttClient } from 'mqtt'
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

const ignored = async (reason: string) =>
  Number(
    new RegExp(`iot_mqtt_ignored_messages_total\\{reason="${reason}"\\} (\\d+)`).exec(
      await platform.bridge.metrics(),
    )?.[1],
  )

/** Stops the bridge, and lets `change` happen to its session meanwhile. */
async function whileAway(change: (session: MqttClient) => Promise<unknown>) {
  const { bridge, run } = platform
  expect(await bridge.stop()).toBe(0)
  const session = await mqtt.connectAsync(`mqtt://127.0.0.1:${inject('mqttPort')}`, {
    clientId: `bridge-${run}`,
    clean: false,
    protocolVersion: 5,
    properties: { sessionExpiryInterval: 600 },
  })
  await change(session)
  await session.endAsync()
}

test('what an old subscription of the session still matches is acknowledged, ignored and counted', async () => {
  const { prefix, redis, bridge } = platform
  await whileAway((session) => session.subscribeAsync([`${prefix}/#`, `${prefix}0/+/data`], { qos: 1 }))
  const id = platform.id('strict')
  const device = await platform.device()
  const unexpected = [
    `${prefix}/${id}/hello`,
    `${prefix}/${id}/commands`,
    `${prefix}/${id}/x/data`,
    `${prefix}0/${id}/data`,
  ]
  for (const topic of unexpected) await device.publishAsync(topic, '1', { qos: 1 })
  await device.publishAsync(`${prefix}/${id}/data`, '"real"', { qos: 1 })
  await bridge.start()
  await bridge.ready()
  await eventually(async () => (await redis.hget(lastStateKey(id), 'payload')) === '"real"', 'the reading')
  await eventually(async () => (await ignored('unexpected_topic')) === unexpected.length, 'the others are ignored')
  expect(await redis.keys(`device:last_state:*${id}`)).toEqual([lastStateKey(id)])
  // nothing is delivered again
  expect(await bridge.stop()).toBe(0)
  await bridge.start()
  await bridge.ready()
  expect(await ignored('unexpected_topic')).toBe(0)
  await whileAway((session) => session.unsubscribeAsync([`${prefix}/#`, `${prefix}0/+/data`]))
  await bridge.start()
  await bridge.ready()
}, 90_000)

test('5,000 messages that the session had queued at QoS 2 become 5,000 records', async () => {
  const COUNT = 5000
  const { prefix, redis, bridge } = platform
  const id = platform.id('twice')
  const starts = await platform.ends()
  await whileAway((session) => session.subscribeAsync(`${prefix}/+/data`, { qos: 2 }))
  const direct = await mqtt.connectAsync(`mqtt://127.0.0.1:${inject('mqttPort')}`)
  for (let seq = 0; seq < COUNT; seq += 500) {
    const batch = Array.from({ length: 500 }, (_, index) => seq + index)
    await Promise.all(batch.map((one) => direct.publishAsync(`${prefix}/${id}/data`, String(one), { qos: 2 })))
  }
  await bridge.start()
  await bridge.ready()
  await eventually(async () => (await redis.hget(lastStateKey(id), 'payload')) === String(COUNT - 1), 'the last one')
  await direct.publishAsync(`${prefix}/${id}/data`, '"end"', { qos: 2 })
  await direct.endAsync()
  await eventually(async () => (await redis.hget(lastStateKey(id), 'payload')) === '"end"', 'one more')
  const seqs: unknown[] = []
  await platform.recordsFrom(starts, ({ key, value }) => {
    if (String(key) === id) seqs.push(JSON.parse(String(value)).payload)
  })
  expect(seqs).toEqual([...Array.from({ length: COUNT }, (_, seq) => seq), 'end'])
  expect(await connects()).toBe(1)
  // and the broker has none of them left
  expect(await bridge.stop()).toBe(0)
  await bridge.start()
  await bridge.ready()
  expect(await bridge.metrics()).toContain('iot_mqtt_received_messages_total 0')
}, 90_000)

test('another MQTT_CLIENT_ID: the session that is left behind is named once', async () => {
  const { bridge, run } = platform
  const lines = () =>
    bridge
      .log()
      .split('\n')
      .filter((line) => line.includes(`"lastClientId":"bridge-${run}"`))
  for (const clientId of [`renamed-${run}`, `renamed-${run}`]) {
    expect(await bridge.stop()).toBe(0)
    await bridge.start({ MQTT_CLIENT_ID: clientId })
    await bridge.ready()
  }
  expect(lines()).toHaveLength(1)
  expect(lines()[0]).toContain('MQTT_CLIENT_ID')
})
