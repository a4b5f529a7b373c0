// Presence and commands: who is online, what reaches a device, and what each refusal looks like.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Cluster } from '@iot/stack/cluster'
import { claimPort } from '@iot/stack/ports'
import { type Server, startMosquitto } from '@iot/stack/servers'
import { Aedes } from 'aedes'
import mqtt from 'mqtt'
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest'
import { sharedKafka } from './fixture.js'
import { createPlatform, eventually, type Platform, portsOf } from './platform.js'
import { startServers } from './servers.js'

let cluster: Cluster
let platform: Platform
beforeAll(async () => {
  cluster = await startServers({ kafka: sharedKafka() }) // of its own, for the broker is stopped
  platform = await createPlatform(portsOf(cluster))
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

const commandTo = async (to: Platform, id: string, body: string, query = '') => {
  const headers = { 'content-type': 'application/json' }
  const reply = await fetch(`${to.bridge.url}/devices/${id}/command${query}`, { method: 'POST', headers, body })
  const answer = (await reply.json()) as Record<string, unknown>
  return { ...answer, http: reply.status }
}
const isOnline = async (at: Platform, id: string) =>
  ((await (await fetch(`${at.bridge.url}/devices/${id}`)).json()) as { online: boolean }).online

describe('a broker that does not allow the bridge to publish commands', () => {
  const dir = mkdtempSync(join(tmpdir(), 'iot-acl-'))
  const rules = join(dir, 'rules')
  let mosquitto: Server
  let restricted: Platform
  beforeAll(async () => {
    const port = await claimPort()
    writeFileSync(rules, '')
    mosquitto = await startMosquitto(port, dir, [`acl_file ${rules}`])
    restricted = await createPlatform({ kafka: inject('kafkaPort'), redis: inject('redisPort'), mqtt: port })
  })
  afterAll(async () => {
    await restricted?.down()
    await mosquitto?.stop()
    rmSync(dir, { recursive: true, force: true })
  })

  test('the caller is told by whom and why, the connection stays, and may try again with the same key', async () => {
    const { prefix, bridge } = restricted
    const readable = [`topic read ${prefix}/#`, `topic write ${prefix}/+/hello`, `topic write ${prefix}/+/data`]
    writeFileSync(rules, `${readable.join('\n')}\n`)
    await mosquitto.signal('SIGHUP')
    await bridge.start()
    await bridge.ready()
    const device = await restricted.device()
    const got: string[] = []
    device.on('message', (_topic, payload) => got.push(String(payload)))
    await device.subscribeAsync(`${prefix}/dev/commands`, { qos: 1 })
    await device.publishAsync(`${prefix}/dev/hello`, '', { qos: 1 })
    await eventually(() => isOnline(restricted, 'dev'), 'online')
    const text = '{"command":"stop","command_id":"mine"}'
    const headers = { 'content-type': 'application/json', 'idempotency-key': 'key' }
    const call = () => fetch(`${bridge.url}/devices/dev/command`, { method: 'POST', headers, body: text })
    const refused = (await (await call()).json()) as Record<string, unknown>
    expect(refused).toMatchObject({ statusCode: 502, code: 'BROKER_REFUSED' })
    expect(refused.message).toMatch(/not authorized/i)
    expect((await fetch(`${bridge.url}/health/ready`)).status).toBe(200)
    expect(await bridge.metrics()).toContain('iot_commands_total{outcome="refused"} 1')

    writeFileSync(rules, `${[...readable, `topic write ${prefix}/+/commands`].join('\n')}\n`)
    await mosquitto.signal('SIGHUP')
    await eventually(async () => (await call()).status === 202, 'allowed now')
    await eventually(() => got.length > 0, 'it arrives')
    expect(got).toEqual([text])
  })
})

test('a broker that closes the connection instead of acknowledging a command has a code of its own', async () => {
  const broker = await Aedes.createBroker({
    authorizePublish: (_client, packet, done) =>
      done(packet.topic.endsWith('/commands') ? new Error('not allowed') : null),
  })
  const server = createServer(broker.handle)
  const port = await new Promise<number>((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve((server.address() as { port: number }).port))
  })
  const closing = await createPlatform({ kafka: inject('kafkaPort'), redis: inject('redisPort'), mqtt: port })
  try {
    await closing.bridge.start()
    await closing.bridge.ready()
    const device = await closing.device()
    await device.publishAsync(`${closing.prefix}/dev/hello`, '', { qos: 1 })
    await eventually(() => isOnline(closing, 'dev'), 'online')
    expect(await commandTo(closing, 'dev', '{"command":"x"}')).toMatchObject({
      http: 503,
      code: 'BROKER_CLOSED_CONNECTION',
    })
  } finally {
    await closing.down()
    await new Promise<void>((resolve) => broker.close(resolve))
    await new Promise((resolve) => server.close(resolve))
  }
})

test('a command that nobody is subscribed to: the caller is told, at once', async () => {
  const device = await platform.device()
  await device.publishAsync(`${platform.prefix}/deaf/hello`, '', { qos: 1 })
  await eventually(() => isOnline(platform, 'deaf'), 'online')
  const reply = await commandTo(platform, 'deaf', '{"command":"x"}', '?wait=60s')
  expect(reply).toMatchObject({ http: 202, status: 'sent', no_subscribers: true })
  const { command_id } = reply as { command_id?: string }
  const record = await (await fetch(`${platform.bridge.url}/commands/${command_id}`)).json()
  expect(record).toMatchObject({ status: 'acknowledged', no_subscribers: true })
})

test('readings as signs of life, and a last will that takes a device offline, where they are asked for', async () => {
  const { prefix, bridge } = platform
  const device = await platform.device()
  await device.publishAsync(`${prefix}/quiet/data`, '1', { qos: 1 })
  await device.publishAsync(`${prefix}/leaving/hello`, 'offline', { qos: 1 })
  await eventually(() => isOnline(platform, 'leaving'), 'by default every hello is a sign of life')
  expect(await isOnline(platform, 'quiet')).toBe(false)

  await bridge.stop()
  await bridge.start({
    PRESENCE_FROM: 'hello,data',
    PRESENCE_OFFLINE_PAYLOAD: 'offline',
    DEVICE_OFFLINE_TIMEOUT: '3600',
  })
  await bridge.ready()
  await device.publishAsync(`${prefix}/quiet/data`, '2', { qos: 1 })
  await eventually(() => isOnline(platform, 'quiet'), 'a reading counts')
  const dying = await mqtt.connectAsync(`mqtt://127.0.0.1:${cluster.mosquitto.port}`, {
    reconnectPeriod: 0,
    will: { topic: `${prefix}/dying/hello`, payload: Buffer.from('offline'), qos: 1, retain: false },
  })
  await dying.publishAsync(`${prefix}/dying/hello`, 'online', { qos: 1 })
  await eventually(() => isOnline(platform, 'dying'), 'online')
  dying.stream.destroy() // no goodbye: the broker publishes the will
  await eventually(async () => !(await isOnline(platform, 'dying')), 'gone')
})
