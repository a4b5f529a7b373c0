// The surroundings of the calls, without any server but their own.
import { connect } from 'node:net'
import { pino } from 'pino'
import { register } from 'prom-client'
import { afterEach, expect, test } from 'vitest'
import { buildHttp, closeHttp, type HttpOptions } from './http.js'

const apps: Awaited<ReturnType<typeof buildHttp>>[] = []
afterEach(async () => {
  for (const app of apps.splice(0)) await app.close()
  register.clear()
})

async function build(options: Partial<HttpOptions> = {}) {
  const defaults = { title: 't', description: 'd', keys: [], callsPerSecond: 1000, trustProxy: false, hosts: [] }
  const app = await buildHttp(
    { ...defaults, ...options },
    (calls) => {
      calls.get('/call', async () => ({ called: true }))
      calls.get('/never', () => new Promise(() => {}))
    },
    { part: () => null },
    pino({ level: 'silent' }),
  )
  apps.push(app)
  return app
}
const KEY = 'a-key-of-sixteen'

test('without a key only names that are known reach the calls: a page cannot rebind one of its own', async () => {
  const app = await build({ hosts: ['api.example'] })
  const status = async (host: string, url = '/call') => (await app.inject({ url, headers: { host } })).statusCode
  for (const host of ['localhost:8000', '127.0.0.1', '[::1]:8000', 'api.example:443'])
    expect(await status(host)).toBe(200)
  for (const host of ['evil.example', 'localhost.evil.example', '127.0.0.1.evil.example'])
    for (const url of ['/call', '/docs/json', '/openapi.json', '/nothing'])
      expect(await status(host, url), url).toBe(421)
  for (const url of ['/health/live', '/health/ready', '/metrics']) expect(await status('bridge:8000', url)).toBe(200)
  const { body } = await app.inject({ url: '/call', headers: { host: 'evil.example' } })
  expect(JSON.parse(body)).toMatchObject({ statusCode: 421, code: 'HOST_NOT_ALLOWED' })
})

test('with a key any name will do', async () => {
  const app = await build({ keys: [KEY] })
  const headers = { host: 'anything.example', authorization: `Bearer ${KEY}` }
  expect((await app.inject({ url: '/call', headers })).statusCode).toBe(200)
  expect((await app.inject({ url: '/call', headers: { host: 'anything.example' } })).statusCode).toBe(401)
})

test.each([
  '/call',
  '/metrics',
  '/openapi.json',
  '/docs/json',
  '/health/live',
  '/nothing',
])('%s is limited', async (url) => {
  const app = await build({ callsPerSecond: 3 })
  const statuses: number[] = []
  for (let count = 0; count < 8; count++) statuses.push((await app.inject({ url })).statusCode)
  expect(statuses).toContain(429)
  expect(statuses.indexOf(429)).toBeGreaterThanOrEqual(3)
})

test('the limit counts the clients of a proxy that is trusted, and believes nobody else', async () => {
  const codes = async (trustProxy: HttpOptions['trustProxy']) => {
    const app = await build({ callsPerSecond: 2, trustProxy })
    const from = (client: number) => app.inject({ url: '/call', headers: { 'x-forwarded-for': `10.0.0.${client}` } })
    const statuses: number[] = []
    for (let client = 0; client < 6; client++) statuses.push((await from(client)).statusCode)
    register.clear()
    return statuses
  }
  expect(await codes(['127.0.0.1'])).not.toContain(429)
  expect(await codes(false)).toContain(429)
  expect(await codes(['10.1.1.1'])).toContain(429)
})

test('a method that a call does not take, and a call that is none', async () => {
  const app = await build()
  const wrong = await app.inject({ method: 'DELETE', url: '/call' })
  expect([wrong.statusCode, wrong.headers.allow, wrong.json().code]).toEqual([405, 'GET, HEAD', 'METHOD_NOT_ALLOWED'])
  expect((await app.inject({ url: '/nothing' })).json()).toMatchObject({ statusCode: 404, code: 'NOT_FOUND' })
})

test('a half-sent request, an idle connection and a call without an end hold up no stop', async () => {
  const app = await build()
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as { port: number }
  const open = async (text: string) => {
    const socket = connect(port, '127.0.0.1')
    socket.on('error', () => {})
    await new Promise((resolve) => socket.once('connect', resolve))
    socket.write(text)
    return socket
  }
  const sockets = [
    await open('GET /call HTTP/1.1\r\nHost: localhost\r\n'),
    await open(
      'POST /call HTTP/1.1\r\nHost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{',
    ),
    await open('GET /never HTTP/1.1\r\nHost: localhost\r\n\r\n'),
    await open(''),
  ]
  await new Promise((resolve) => setTimeout(resolve, 100))
  await closeHttp(app, 2000)
  for (const socket of sockets) socket.destroy()
})
