// Presence and commands: who is online, what reaches a device, and what each refusal looks like.
import type { Cluster } from '@iot/stack/cluster'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createPlatform, eventually, type Platform } from './platform.js'
import { startServers } from './servers.js'

let cluster: Cluster
let platform: Platform
beforeAll(async () => {
  cluster = await startServers() // of its own, for the broker is stopped
  platform = await createPlatform({
    kafka: cluster.kafka.port,
    redis: cluster.redis.port,
    mqtt: cluster.mosquitto.port,
  })
  await platform.bridge.start({ DEVICE_OFFLINE_TIMEOUT: '3', COMMAND_TIMEOUT_MS: '1000' })
  await platform.bridge.ready()
})
afterAll(async () => {
  await platform?.down()
  await cluster?.stop()
})

const devices = async () => (await fetch(`${platform.bridge.url}/devices`)).json() as Promise<string[]>
const command = async (id: string, body: string) => {
  const headers = { 'content-type': 'application/json' }
  const reply = await fetch(`${platform.bridge.url}/devices/${encodeURIComponent(id)}/command`, {
    method: 'POST',
    headers,
    body,
  })
  return {
    ...((await reply.json()) as { code?: string; statusCode?: number; command_id?: string }),
    http: reply.status,
  }
}

test('hello puts a device online, and silence takes it off', async () => {
  const device = await platform.device()
  for (const id of ['b', 'a']) await device.publishAsync(`${platform.prefix}/${id}/hello`, '')
  await eventually(async () => (await devices()).join() === 'a,b', 'both online, sorted')
  await eventually(async () => (await devices()).length === 0, 'both offline')
})

test('a command reaches the device as it was written; 400, 404, 504 and 503 are answered and never delivered', async () => {
  const device = await platform.device()
  const got: string[] = []
  device.on('message', (_topic, payload) => got.push(payload.toString()))
  await device.subscribeAsync(`${platform.prefix}/dev/commands`, { qos: 1 })
  const hello = () => device.publishAsync(`${platform.prefix}/dev/hello`, '', { qos: 1 })
  const online = async () => {
    await hello()
    await eventually(async () => (await devices()).includes('dev'), 'online')
  }
  await online()
  const text = '{"command":"set", "value":1.10,"big":12345678901234567890}'
  const { http, command_id } = await command('dev', text)
  expect(http).toBe(202)
  await eventually(() => got.length === 1, 'the command')
  const sent = `${text.slice(0, -1)},"command_id":"${command_id}"}`
  expect(got).toEqual([sent])

  for (const body of ['{}', '[]', '"start"', '{"command":""}', '{"command":1}', '{', '']) {
    expect(await command('dev', body), body).toMatchObject({ http: 400, statusCode: 400 })
  }
  expect(await command('a/b', '{"command":"x"}')).toMatchObject({ http: 400, code: 'INVALID_DEVICE_ID' })
  expect(await command('nobody', '{"command":"x"}')).toMatchObject({ http: 404, code: 'DEVICE_OFFLINE' })

  await online()
  await cluster.mosquitto.signal('SIGSTOP')
  expect(await command('dev', '{"command":"frozen"}')).toMatchObject({ http: 504, code: 'BROKER_TIMEOUT' })
  await cluster.mosquitto.signal('SIGCONT')
  await online()
  await cluster.mosquitto.stop()
  expect(await command('dev', '{"command":"away"}')).toMatchObject({ http: 503, code: 'BROKER_NOT_CONNECTED' })
  await cluster.mosquitto.start()
  await platform.bridge.ready()
  await eventually(() => device.connected, 'the device is back')
  await device.subscribeAsync(`${platform.prefix}/dev/commands`, { qos: 1 })
  await online()
  const last = '{"command":"last","command_id":"mine"}'
  expect(await command('dev', last)).toMatchObject({ http: 202, command_id: 'mine' })
  await eventually(() => got.at(-1) === last, 'the last command')
  expect(got).toEqual([sent, last])
})
