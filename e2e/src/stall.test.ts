// Connected, but nothing arrives: the canary notices, the client is built anew, and what was kept is delivered.
import { createServer } from 'node:net'
import { lastStateKey } from '@iot/shared/contract'
import { Aedes } from 'aedes'
import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import { createPlatform, eventually, type Platform } from './platform.js'

let platform: Platform
let close: () => Promise<void>
let isMute = false // the broker takes everything, answers pings, and delivers nothing
beforeAll(async () => {
  const broker = await Aedes.createBroker({ authorizeForward: (_client, packet) => (isMute ? null : packet) })
  const server = createServer(broker.handle)
  const port = await new Promise<number>((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve((server.address() as { port: number }).port))
  })
  close = async () => {
    await new Promise<void>((resolve) => broker.close(resolve))
    await new Promise((resolve) => server.close(resolve))
  }
  platform = await createPlatform({ kafka: inject('kafkaPort'), redis: inject('redisPort'), mqtt: port })
  await Promise.all([platform.bridge.start({ MQTT_STALL_TIMEOUT_MS: '3000' }), platform.consumer.start()])
  await Promise.all([platform.bridge.ready(), platform.consumer.ready()])
})
afterAll(async () => {
  await platform?.down()
  await close?.()
})

const counted = async (name: string, connection: string) =>
  Number(
    new RegExp(`^${name}\\{connection="${connection}"\\} (\\d+)$`, 'm').exec(await platform.bridge.metrics())?.[1] ?? 0,
  )

test('a silent connection is no stall, a mute broker is one', async () => {
  const { bridge, prefix, redis } = platform
  const canaryCame = async () => (await counted('iot_mqtt_connects_total', 'ingestion')) === 1
  expect(await canaryCame()).toBe(true)
  // longer than the stall timeout without a message: the canary keeps both connections
  const quietUntil = Date.now() + 6000
  await eventually(() => Date.now() > quietUntil, 'quiet for a while')
  for (const connection of ['ingestion', 'control']) expect(await counted('iot_mqtt_stalls_total', connection)).toBe(0)

  isMute = true
  for (const connection of ['ingestion', 'control'])
    await eventually(async () => (await counted('iot_mqtt_stalls_total', connection)) > 0, `${connection} is stalled`)
  expect(bridge.log()).toContain('nothing arrives')
  isMute = false
  await bridge.ready()
  const id = platform.id('heard')
  const device = await platform.device()
  await eventually(async () => {
    await device.publishAsync(`${prefix}/${id}/data`, '1', { qos: 1 })
    return (await redis.hget(lastStateKey(id), 'payload')) === '1'
  }, 'the reading')
})
