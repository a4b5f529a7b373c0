// A broker that refuses MQTT 5 is spoken to in 3.1.1, by both connections.
import { createServer } from 'node:net'
import { Aedes } from 'aedes'
import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import { createPlatform, eventually, type Platform } from './platform.js'

let platform: Platform
let close: () => Promise<void>
beforeAll(async () => {
  const broker = await Aedes.createBroker()
  const server = createServer(broker.handle)
  const port = await new Promise<number>((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve((server.address() as { port: number }).port))
  })
  close = async () => {
    await new Promise<void>((resolve) => broker.close(resolve))
    await new Promise((resolve) => server.close(resolve))
  }
  platform = await createPlatform({ kafka: inject('kafkaPort'), redis: inject('redisPort'), mqtt: port })
  await platform.up()
})
afterAll(async () => {
  await platform?.down()
  await close?.()
})

test('data flows and commands arrive over MQTT 3.1.1', async () => {
  const { prefix, redis, bridge } = platform
  const id = platform.id('old')
  const device = await platform.device()
  const got: string[] = []
  device.on('message', (_topic, payload) => got.push(String(payload)))
  await device.subscribeAsync(`${prefix}/${id}/commands`, { qos: 1 })
  await device.publishAsync(`${prefix}/${id}/hello`, '', { qos: 1 })
  await device.publishAsync(`${prefix}/${id}/data`, '{"t":1.10}', { qos: 1 })
  await eventually(async () => (await redis.hget(`device:last_state:${id}`, 'payload')) === '{"t":1.10}', 'the reading')
  const headers = { 'content-type': 'application/json' }
  const url = `${bridge.url}/devices/${id}/command`
  const reply = await fetch(url, { method: 'POST', headers, body: '{"command":"start"}' })
  expect(reply.status).toBe(202)
  await eventually(() => got.length === 1, 'the command')
  expect(got[0]).toMatch(/^\{"command":"start","command_id":"[0-9a-f-]{36}"\}$/)
  expect(bridge.log()).toContain('using 3.1.1')
})
