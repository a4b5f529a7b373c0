import { ANYBODY } from '@iot/shared/http/access'
import { fastify } from 'fastify'
import { serializerCompiler, validatorCompiler } from 'fastify-type-provider-zod'
import { pino } from 'pino'
import { expect, test, vi } from 'vitest'
import { createPresence } from '../presence.js'
import { deviceCalls } from './devices.js'

const WAIT = { timeout: 20_000 } // a list may be nine times as old as making it took

async function build(count: number) {
  const app = fastify()
  app.setValidatorCompiler(validatorCompiler)
  app.setSerializerCompiler(serializerCompiler)
  const presence = createPresence({ timeoutSeconds: 60, maxDevices: 300_000 }, pino({ level: 'silent' }))
  app.addHook('onRequest', async (request) => {
    request.caller = { ...ANYBODY, prefix: String(request.headers.prefix ?? '') }
  })
  await app.register(deviceCalls(presence))
  for (let index = 0; index < count; index++) presence.seen(`device-${index}`)
  return { app, presence }
}

test.each([0, 1, 249, 250, 251, 500, 501, 10_000])('%d devices, as ids and in detail', async (count) => {
  const { app } = await build(count)
  const ids = Array.from({ length: count }, (_, index) => `device-${index}`).sort()
  for (const look of [1, 2]) expect((await app.inject('/devices')).json(), `look ${look}`).toEqual(ids)
  const details = (await app.inject('/devices?details=true')).json()
  expect(details.map(({ device_id }: { device_id: string }) => device_id)).toEqual(ids)
  if (count > 0) expect(details[0]).toEqual({ device_id: ids[0], online: true, last_seen: expect.any(Number) })
})

test('whoever reads slowly gets each id once, in order, while others come and go', async () => {
  const { app, presence } = await build(20_000)
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as { port: number }
  const { body } = await fetch(`http://127.0.0.1:${port}/devices`)
  let text = ''
  let pieces = 0
  for await (const chunk of body as unknown as AsyncIterable<Uint8Array>) {
    text += Buffer.from(chunk).toString()
    for (let newcomer = 0; newcomer < 20; newcomer++) presence.seen(`device-${pieces}-newcomer-${newcomer}`)
    pieces++
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
  await app.close()
  const ids = JSON.parse(text) as string[]
  expect(pieces).toBeGreaterThan(5)
  expect(ids).toEqual([...new Set(ids)].sort())
  const first = Array.from({ length: 20_000 }, (_, index) => `device-${index}`)
  expect(new Set(ids)).toEqual(new Set([...first, ...ids.filter((id) => id.includes('newcomer'))]))
})

test('one device', async () => {
  const { app } = await build(1)
  const get = async (id: string) => (await app.inject(`/devices/${encodeURIComponent(id)}`)).json()
  expect(await get('device-0')).toEqual({ device_id: 'device-0', online: true, last_seen: expect.any(Number) })
  expect(await get('nobody')).toEqual({ device_id: 'nobody', online: false, last_seen: null })
  expect(await get('a/b')).toMatchObject({ statusCode: 400 })
})

test('all who are online, then who came and went since', async () => {
  const { app, presence } = await build(1000)
  const get = async (query: string) => (await app.inject(`/presence${query}`)).json()
  await vi.waitFor(async () => expect((await get('')).all).toHaveLength(1000), WAIT)
  const { version } = await get('')
  presence.seen('one more')
  const changes = { version: expect.any(String), online: ['one more'], offline: [] }
  await vi.waitFor(async () => expect(await get(`?since=${version}`)).toEqual(changes), WAIT)
  await vi.waitFor(async () => expect((await get('?since=1')).all).toHaveLength(1001), WAIT)
})

test('a key with a prefix lists its own devices', async () => {
  const { app } = await build(2000)
  await vi.waitFor(async () => expect((await app.inject('/devices')).json()).toHaveLength(2000), WAIT)
  const { body } = await app.inject({ url: '/devices', headers: { prefix: 'device-17' } })
  expect(JSON.parse(body)).toHaveLength(111)
})
