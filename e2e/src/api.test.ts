// The REST API from outside: who may call, what a command's outcome is, what describes it.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { root } from '@iot/stack/prepare'
import type { MqttClient } from 'mqtt'
import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import { createPlatform, eventually, type Platform } from './platform.js'

const KEYS = ['first-key-0123456789', 'second-key-0123456789']

let platform: Platform
let device: MqttClient
let id: string
const got: { command: string; command_id: string }[] = []
beforeAll(async () => {
  platform = await createPlatform({ kafka: inject('kafkaPort'), redis: inject('redisPort'), mqtt: inject('mqttPort') })
  await platform.bridge.start({ API_KEY: KEYS.join(', '), COMMAND_TIMEOUT_MS: '20000' })
  await platform.bridge.ready()
  id = platform.id('dev')
  device = await platform.device()
  device.on('message', (_topic, payload) => {
    const command = JSON.parse(String(payload))
    got.push(command)
    const answer = (status: string) => {
      const reply = JSON.stringify({ command_id: command.command_id, status, result: { said: command.command } })
      device.publish(`${platform.prefix}/${id}/commands/ack`, reply, { qos: 1 })
    }
    if (command.command === 'work') answer('succeeded')
    if (command.command === 'break') answer('failed')
  })
  await device.subscribeAsync(`${platform.prefix}/${id}/commands`, { qos: 1 })
  await device.publishAsync(`${platform.prefix}/${id}/hello`, '', { qos: 1 })
  await eventually(async () => (await get('/devices')).body.includes(id), 'online')
})
afterAll(() => platform.down())

const call = async (path: string, init: RequestInit = {}) => {
  const headers = { authorization: `Bearer ${KEYS[1]}`, ...(init.headers as Record<string, string>) }
  const reply = await fetch(platform.bridge.url + path, { ...init, headers })
  const text = await reply.text()
  return { status: reply.status, body: JSON.parse(text), headers: reply.headers }
}
const get = (path: string) => call(path)
const post = (path: string, body: string, headers: Record<string, string> = {}) =>
  call(path, { method: 'POST', body, headers: { 'content-type': 'application/json', ...headers } })
const command = (body: string, query = '', headers = {}) => post(`/devices/${id}/command${query}`, body, headers)

test('a key is asked for, health and metrics are open', async () => {
  const without = (path: string, headers = {}) => fetch(platform.bridge.url + path, { headers })
  for (const headers of [{}, { authorization: 'Bearer wrong' }, { authorization: KEYS[0] ?? '' }]) {
    const reply = await without('/devices', headers)
    expect(reply.status).toBe(401)
    expect(await reply.json()).toMatchObject({ statusCode: 401, code: 'UNAUTHORIZED' })
  }
  for (const key of KEYS) expect((await without('/devices', { authorization: `Bearer ${key}` })).status).toBe(200)
  for (const path of ['/health/live', '/health/ready', '/metrics', '/openapi.json', '/docs'])
    expect((await without(path)).status, path).toBe(200)
})

test('without a key an address that is not loopback is refused, unless that is said', async () => {
  const start = (env: NodeJS.ProcessEnv) =>
    spawnSync(process.execPath, [join(root, 'bridge', 'dist', 'main.js')], { env, encoding: 'utf8', timeout: 20_000 })
  const { status, stderr } = start({ API_HOST: '0.0.0.0' })
  expect(status).toBe(1)
  expect(stderr).toMatch(/^mqtt-kafka-bridge: API_KEY: .*API_AUTH=none.*\n$/)
  expect(start({ API_KEY: 'short' }).stderr).toBe(
    'mqtt-kafka-bridge: API_KEY: each key must have 16 characters or more\n',
  )
})

test('the outcome of a command, with and without waiting for the device', async () => {
  const plain = await command('{"command":"listen"}')
  expect(plain).toMatchObject({ status: 202, body: { status: 'sent', device_id: id } })
  const commandId = plain.body.command_id
  await eventually(() => got.some((one) => one.command_id === commandId), 'it has the id')
  expect(await get(`/commands/${commandId}`)).toMatchObject({ status: 200, body: { status: 'acknowledged' } })

  expect(await command('{"command":"work","command_id":"mine"}', '?wait=5s')).toMatchObject({
    status: 200,
    body: { command_id: 'mine', device_id: id, status: 'succeeded', result: { said: 'work' } },
  })
  expect((await get('/commands/mine')).body.status).toBe('succeeded')
  expect(await command('{"command":"break"}', '?wait=5s')).toMatchObject({ status: 200, body: { status: 'failed' } })
  expect(await command('{"command":"listen"}', '?wait=200ms')).toMatchObject({ status: 202 })
  expect(await command('{"command":"work","command_id":"mine"}')).toMatchObject({
    status: 409,
    body: { code: 'COMMAND_ID_IN_USE' },
  })
  const brief = await command('{"command":"listen"}', '?ttl=1s')
  await eventually(async () => (await get(`/commands/${brief.body.command_id}`)).body.status === 'expired', 'expired')
  expect(await get('/commands/unknown')).toMatchObject({ status: 404, body: { code: 'COMMAND_UNKNOWN' } })
})

test('an Idempotency-Key never sends twice', async () => {
  const headers = { 'idempotency-key': platform.id('key') }
  const body = '{"command":"once"}'
  const replies = await Promise.all([command(body, '', headers), command(body, '', headers)])
  replies.push(await command(body, '', headers))
  expect(new Set(replies.map((reply) => reply.body.command_id)).size).toBe(1)
  expect(replies.map(({ status }) => status)).toEqual([202, 202, 202])
  expect(await command('{"command":"other"}', '', headers)).toMatchObject({
    status: 409,
    body: { code: 'IDEMPOTENCY_KEY_REUSED' },
  })
  const after = await command('{"command":"work"}', '?wait=5s')
  expect(after.status).toBe(200)
  expect(got.filter((one) => one.command === 'once')).toHaveLength(1)
  expect(got.filter((one) => one.command === 'other')).toHaveLength(0)
})

test('a browser is led to the page', async () => {
  const { url } = platform.bridge
  expect(await (await fetch(`${url}/`)).text()).toContain('reader')
})

test('devices in detail', async () => {
  const now = Math.floor(Date.now() / 1000)
  const { body } = await get(`/devices/${id}`)
  expect(body).toEqual({ device_id: id, online: true, last_seen: expect.any(Number) })
  expect(Math.abs(body.last_seen - now)).toBeLessThan(60)
  expect((await get('/devices/nobody')).body).toEqual({ device_id: 'nobody', online: false, last_seen: null })
  expect((await get('/devices?details=true')).body).toEqual([body])
  expect((await get('/devices?details=perhaps')).body).toMatchObject({ statusCode: 400, code: 'INVALID_QUERY' })
})

test('what is wrong has a stable code and no stack', async () => {
  const wrong: [Promise<{ status: number; body: Record<string, unknown> }>, number, string][] = [
    [command('{}'), 400, 'INVALID_COMMAND'],
    [command('{"command":"x","command_id":7}'), 400, 'INVALID_COMMAND'],
    [command('{"command":"x"}', '?wait=soon'), 400, 'INVALID_QUERY'],
    [command('{"command":"x"}', '', { 'content-type': 'text/plain' }), 415, 'FST_ERR_CTP_INVALID_MEDIA_TYPE'],
    [command(JSON.stringify({ command: 'x'.repeat(300_000) })), 413, 'FST_ERR_CTP_BODY_TOO_LARGE'],
    [post('/devices/a%2Fb/command', '{"command":"x"}'), 400, 'INVALID_DEVICE_ID'],
    [post('/devices/nobody/command', '{"command":"x"}'), 404, 'DEVICE_OFFLINE'],
    [get('/nothing'), 404, 'NOT_FOUND'],
  ]
  for (const [pending, status, code] of wrong) {
    const reply = await pending
    expect(reply).toMatchObject({ status, body: { statusCode: status, code } })
    expect(Object.keys(reply.body).sort()).toEqual(['code', 'error', 'message', 'statusCode'])
  }
})

test('the description names every route, answer and error', async () => {
  const { body } = await get('/openapi.json')
  expect(body.openapi).toMatch(/^3\.1/)
  expect(Object.keys(body.paths).sort()).toEqual([
    '/commands/{commandId}',
    '/devices',
    '/devices/{deviceId}',
    '/devices/{deviceId}/command',
    '/health/live',
    '/health/ready',
    '/metrics',
    '/presence',
  ])
  const { responses } = body.paths['/devices/{deviceId}/command'].post
  expect(Object.keys(responses).sort()).toEqual([
    '200',
    '202',
    '400',
    '401',
    '403',
    '404',
    '409',
    '413',
    '415',
    '421',
    '429',
    '500',
    '502',
    '503',
    '504',
  ])
})

test('too many calls are turned away', async () => {
  await platform.bridge.stop()
  await platform.bridge.start({ API_KEY: KEYS.join(', '), API_RATE_LIMIT: '2' }) // less than the slowest machine can ask
  const replies = await Promise.all(Array.from({ length: 50 }, () => get('/devices')))
  const refused = replies.filter(({ status }) => status === 429)
  expect(refused.length).toBeGreaterThan(0)
  expect(refused[0]?.body).toMatchObject({ statusCode: 429, code: 'TOO_MANY_REQUESTS' })
  await eventually(async () => (await get('/devices')).status === 200, 'welcome again')
})
