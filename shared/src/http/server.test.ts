// The surroundings of the calls, without any server but their own.
import { connect, type Socket } from 'node:net'
import { PassThrough } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import { pino } from 'pino'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { Problem } from './problem.js'
import { createHttpServer, type HttpOptions, type HttpServer } from './server.js'

const KEY = 'a-key-of-sixteen'
const servers: HttpServer[] = []
beforeEach(() => void vi.useFakeTimers({ toFake: ['Date'] })) // the limit counts within one second of it
afterEach(async () => {
  vi.useRealTimers()
  for (const { app } of servers.splice(0)) await app.close()
})

let problem: string | null = null
const release: (() => void)[] = []

async function build(options: Partial<HttpOptions> = {}, log = pino({ level: 'silent' })) {
  const defaults = {
    title: 't',
    description: 'd',
    version: '1',
    keys: [],
    readKeys: [],
    host: '127.0.0.1',
    allowedHosts: [],
    callsPerSecond: 1000,
    trustProxy: false,
  }
  const server = await createHttpServer(
    { ...defaults, ...options },
    [
      async (calls) => {
        calls.get('/call', async ({ caller }) => ({ caller: caller.name }))
        calls.get('/devices/:deviceId', async ({ params }) => params)
        calls.post('/devices/:deviceId', async ({ params }) => params)
        calls.get('/list', { config: { keepsToPrefix: true } }, async ({ caller }) => ({ prefix: caller.prefix }))
        calls.get('/stream', (_request, reply) => reply.send(new PassThrough()))
        calls.get('/slow', () => new Promise((resolve) => release.push(() => resolve({ done: true }))))
        calls.post('/echo', async ({ body }) => ({ length: (body as string).length }))
        calls.post('/hold', () => new Promise((resolve) => release.push(() => resolve({}))))
        calls.get('/bug', async () => {
          throw new Error('a secret of ours')
        })
        calls.get('/refused', async () => {
          throw new Problem(409, 'TAKEN', 'It is taken')
        })
      },
    ],
    { part: () => problem },
    log,
  )
  servers.push(server)
  return server
}
const json = { 'content-type': 'application/json' }

test('without a key only names that are ours reach the calls: a page cannot rebind one of its own', async () => {
  const { app } = await build({ allowedHosts: ['api.example'] })
  const status = async (host: string, url = '/call') => (await app.inject({ url, headers: { host } })).statusCode
  for (const host of ['localhost:8000', 'LOCALHOST', '127.0.0.1', '127.0.0.2:1', '[::1]:8000', 'api.example:443'])
    expect(await status(host), host).toBe(200)
  const others = ['evil.example', 'localhost.evil.example', '127.0.0.1.evil.example', '192.168.1.5', 'a b', '[::1']
  for (const host of others)
    for (const url of ['/call', '/docs/json', '/openapi.json', '/nothing'])
      expect(await status(host, url), host + url).toBe(421)
  for (const url of ['/health/live', '/health/ready', '/metrics']) expect(await status('bridge:8000', url)).toBe(200)
  const { body } = await app.inject({ url: '/call', headers: { host: 'evil.example' } })
  expect(JSON.parse(body)).toMatchObject({ statusCode: 421, code: 'HOST_NOT_ALLOWED' })
})

test('a page cannot pretend another name by a header of proxies', async () => {
  const { app } = await build({ trustProxy: true })
  const headers = { host: 'evil.example', 'x-forwarded-host': 'localhost', 'x-forwarded-for': '127.0.0.1' }
  expect((await app.inject({ url: '/call', headers })).statusCode).toBe(421)
})

test('where every address is listened on, every address is ours, and no other name', async () => {
  const { app } = await build({ host: '0.0.0.0' })
  const status = async (host: string) => (await app.inject({ url: '/call', headers: { host } })).statusCode
  for (const host of ['192.168.1.5:8000', '[fe80::1]:8000', 'localhost']) expect(await status(host), host).toBe(200)
  for (const host of ['192.168.1.5.evil.example', 'bridge:8000']) expect(await status(host), host).toBe(421)
})

test('what is open needs no key, but a name that is ours where there are none', async () => {
  const open = [async (app: FastifyInstance) => void app.get('/', async () => 'page')]
  const { app } = await build({ keys: [KEY], open })
  expect((await app.inject({ url: '/', headers: { host: 'any.example' } })).body).toBe('page')
  expect((await app.inject('/call')).statusCode).toBe(401)
  const { app: unlocked } = await build({ open })
  expect((await unlocked.inject({ url: '/', headers: { host: 'evil.example' } })).statusCode).toBe(421)
})

test('with keys any name will do, and each key is another caller', async () => {
  const { app } = await build({ keys: [KEY, 'another-key-of-ours'] })
  const call = (authorization?: string) =>
    app.inject({ url: '/call', headers: { host: 'any.example', ...(authorization ? { authorization } : {}) } })
  for (const shown of [
    undefined,
    'Bearer',
    'Bearer ',
    `Basic ${KEY}`,
    KEY,
    `Bearer ${KEY}x`,
    `Bearer ${KEY.slice(1)}`,
  ]) {
    const reply = await call(shown)
    expect([reply.statusCode, reply.json().code], shown).toEqual([401, 'UNAUTHORIZED'])
  }
  const [first, second] = [await call(`Bearer ${KEY}`), await call('bearer another-key-of-ours')]
  expect([first.statusCode, second.statusCode]).toEqual([200, 200])
  expect(first.json().caller).not.toBe(second.json().caller)
  expect(first.body + second.body).not.toContain('key')
})

test('a read key only reads, and only of the devices of its prefix', async () => {
  const readKeys = [
    { key: 'reads-everything', prefix: '' },
    { key: 'reads-of-one-site', prefix: 'site-a-' },
  ]
  const { app } = await build({ readKeys })
  const status = async (key: string | undefined, url: string, method: 'GET' | 'POST' = 'GET') => {
    const headers = key === undefined ? {} : { authorization: `Bearer ${key}` }
    return (await app.inject({ method, url, headers })).statusCode
  }
  const [all, site] = readKeys.map(({ key }) => key)
  expect(await status(undefined, '/call')).toBe(401)
  for (const url of ['/call', '/list', '/devices/x', '/devices/site-a-1']) expect(await status(all, url), url).toBe(200)
  expect(await status(all, '/devices/x', 'POST')).toBe(403)
  expect(await status(all, '/echo', 'POST')).toBe(403)
  for (const url of ['/list', '/devices/site-a-1', '/devices/site%2Da-']) expect(await status(site, url), url).toBe(200)
  for (const url of ['/call', '/devices/x', '/devices/site-a', '/devices/Site-a-1'])
    expect(await status(site, url), url).toBe(403)
  expect(await status(site, '/devices/site-a-1', 'POST')).toBe(403)
  const { body } = await app.inject({ url: '/list', headers: { authorization: `Bearer ${site}` } })
  expect(JSON.parse(body)).toEqual({ prefix: 'site-a-' })
})

test('only who may call learns why a part is not ready', async () => {
  const { app } = await build({ keys: [KEY] })
  const ready = async (headers: Record<string, string>) => (await app.inject({ url: '/health/ready', headers })).json()
  problem = 'connect ECONNREFUSED 10.0.0.3:9092'
  expect(await ready({})).toEqual({ status: 'not ready', not_ready: { part: 'not ready' } })
  expect(await ready({ authorization: `Bearer ${KEY}` })).toEqual({ status: 'not ready', not_ready: { part: problem } })
  const { app: open } = await build()
  const seen = async (host: string) => (await open.inject({ url: '/health/ready', headers: { host } })).json().not_ready
  expect(await seen('localhost')).toEqual({ part: problem })
  expect(await seen('evil.example')).toEqual({ part: 'not ready' })
  problem = null
})

const statuses = async ({ app }: HttpServer, request: object, count = 8) => {
  const found: number[] = []
  for (let call = 0; call < count; call++) found.push((await app.inject(request)).statusCode)
  return found
}

test.each<[string, object]>([
  ['a call', { url: '/call' }],
  ['the description', { url: '/openapi.json' }],
  ['the page of it', { url: '/docs/json' }],
  ['a call that is none', { url: '/nothing' }],
  ['a body for a call that is none', { method: 'POST', url: '/nothing', headers: json, body: '{' }],
  ['another method', { method: 'DELETE', url: '/call' }],
  ['a type that is not taken', { method: 'POST', url: '/echo', headers: { 'content-type': 'text/plain' }, body: 'x' }],
  ['a bug', { url: '/bug' }],
  ['a path that cannot be read', { url: '/%' }],
  ['a name that is not ours', { url: '/call', headers: { host: 'evil.example' } }],
])('the limit counts %s', async (_what, request) => {
  const found = await statuses(await build({ callsPerSecond: 3 }), request)
  expect(found.slice(0, 3)).not.toContain(429)
  expect(found).toContain(429)
})

test('the limit counts calls with a wrong key', async () => {
  const found = await statuses(await build({ callsPerSecond: 3, keys: [KEY] }), { url: '/call' })
  expect(found.slice(0, 4)).toEqual([401, 401, 401, 429])
})

test.each([
  '/health/live',
  '/health/ready',
  '/metrics',
])('no caller keeps a program that watches from %s', async (url) => {
  const server = await build({ callsPerSecond: 1 })
  expect(await statuses(server, { url: '/call' })).toContain(429)
  expect(await statuses(server, { url }, 50)).not.toContain(429)
  expect(await statuses(server, { url }, 101)).toContain(429)
})

test('the limit counts the clients of a proxy that is trusted, and believes nobody else', async () => {
  const codes = async (trustProxy: HttpOptions['trustProxy']) => {
    const { app } = await build({ callsPerSecond: 2, trustProxy })
    const from = (client: number) => app.inject({ url: '/call', headers: { 'x-forwarded-for': `10.0.0.${client}` } })
    const found: number[] = []
    for (let client = 0; client < 6; client++) found.push((await from(client)).statusCode)
    return found
  }
  expect(await codes(['127.0.0.0/8'])).not.toContain(429)
  expect(await codes(false)).toContain(429)
  expect(await codes(['10.1.1.1'])).toContain(429)
})

test('what a caller writes where an address should stand is one client', async () => {
  const { app } = await build({ callsPerSecond: 2, trustProxy: true })
  const from = (client: string) => app.inject({ url: '/call', headers: { 'x-forwarded-for': client } })
  for (const client of ['a', 'b']) expect((await from(client)).statusCode).toBe(200)
  expect((await from('c'.repeat(10_000))).statusCode).toBe(429)
})

test.each<[object, number, string]>([
  [{ method: 'DELETE', url: '/call' }, 405, 'METHOD_NOT_ALLOWED'],
  [{ method: 'QUERY', url: '/call' }, 405, 'METHOD_NOT_ALLOWED'],
  [{ method: 'POST', url: '/call', headers: json, body: '{}' }, 405, 'METHOD_NOT_ALLOWED'],
  [{ method: 'POST', url: '/metrics', headers: { 'content-type': 'a/b' }, body: 'x' }, 405, 'METHOD_NOT_ALLOWED'],
  [{ url: '/nothing' }, 404, 'NOT_FOUND'],
  [{ method: 'POST', url: '/nothing', headers: { 'content-type': 'a/b' }, body: 'x' }, 404, 'NOT_FOUND'],
  [
    { method: 'POST', url: '/echo', headers: { 'content-type': 'a/b' }, body: 'x' },
    415,
    'FST_ERR_CTP_INVALID_MEDIA_TYPE',
  ],
  [{ method: 'POST', url: '/echo', headers: json, body: 'x'.repeat(262_145) }, 413, 'FST_ERR_CTP_BODY_TOO_LARGE'],
  [{ url: '/%' }, 400, 'INVALID_URL'],
  [{ url: '/refused' }, 409, 'TAKEN'],
  [{ url: '/bug' }, 500, 'INTERNAL'],
])('%o: %d %s', async (request, status, code) => {
  const { app } = await build()
  const reply = await app.inject(request)
  expect(reply.json()).toMatchObject({ statusCode: status, code })
  expect(reply.statusCode).toBe(status)
  expect(Object.keys(reply.json()).sort()).toEqual(['code', 'error', 'message', 'statusCode'])
  expect(reply.body).not.toContain('secret')
  if (status === 405) expect(reply.headers.allow).toContain('GET, HEAD')
})

test('a bug is logged once a minute, not for each call that meets it', async () => {
  const lines: string[] = []
  const server = await build({}, pino({}, { write: (line) => void lines.push(line) }))
  expect(await statuses(server, { url: '/bug' }, 50)).toEqual(Array(50).fill(500))
  expect(lines.filter((line) => line.includes('a secret of ours'))).toHaveLength(1)
})

test('bodies are bounded all together, and only while they are held', async () => {
  const { app } = await build()
  const body = 'x'.repeat(262_144)
  const hold = () => app.inject({ method: 'POST', url: '/hold', headers: json, body })
  const held = Array.from({ length: 122 }, hold)
  await expect.poll(() => release.length).toBe(122) // 31,981,568 bytes
  const echo = () => app.inject({ method: 'POST', url: '/echo', headers: json, body })
  const refused = await echo()
  expect([refused.statusCode, refused.json().code]).toEqual([503, 'BUSY'])
  expect((await app.inject({ method: 'POST', url: '/echo', headers: json, body: 'x' })).statusCode).toBe(200)
  for (const answer of release.splice(0)) answer()
  await Promise.all(held)
  expect((await echo()).json()).toEqual({ length: 262_144 })
})

const half = {
  line: 'GET /ca',
  headers: 'GET /call HTTP/1.1\r\nHost: localhost\r\n',
  body: 'POST /echo HTTP/1.1\r\nHost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{',
  nothing: '',
}

async function listening(host: string) {
  const server = await build()
  await server.app.listen({ host, port: 0 })
  const { port } = server.app.server.address() as { port: number }
  const open = async (text: string, address = '127.0.0.1') => {
    const socket = connect(port, address)
    socket.on('error', () => {})
    await new Promise((resolve) => socket.once('connect', resolve))
    socket.write(text)
    return socket
  }
  return { server, open }
}
const textOf = (socket: Socket) =>
  new Promise<string>((resolve) => {
    let text = ''
    socket.on('data', (data) => {
      text += data
    })
    socket.once('close', () => resolve(text))
  })

test.each(['127.0.0.1', 'localhost'])('on %s what is half sent, idle or never taken holds up no stop', async (host) => {
  const { server, open } = await listening(host)
  const sockets = await Promise.all(Object.values(half).map((text) => open(text)))
  const kept = await open('GET /call HTTP/1.1\r\nHost: localhost\r\n\r\n')
  await new Promise((resolve) => kept.once('data', resolve))
  const startedMs = performance.now()
  await server.stop(5000)
  expect(performance.now() - startedMs).toBeLessThan(1000)
  for (const socket of [...sockets, kept]) socket.destroy()
})

test('a call that is complete gets its answer before the stop, one without an end does not hold it up', async () => {
  const { server, open } = await listening('127.0.0.1')
  const slow = await open('GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n')
  const answered = textOf(slow)
  await expect.poll(() => release.length).toBe(1)
  const stopped = server.stop(5000)
  setTimeout(() => release.splice(0).forEach((answer) => void answer()), 300)
  expect(await answered).toContain('{"done":true}')
  await stopped

  const other = await listening('127.0.0.1')
  const never = await other.open('GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n')
  await new Promise((resolve) => setTimeout(resolve, 50))
  const startedMs = performance.now()
  await other.server.stop(1000)
  expect(performance.now() - startedMs).toBeLessThan(900)
  never.destroy()
})

test('a request has a limit in time, and its headers one in size', async () => {
  const { server, open } = await listening('127.0.0.1')
  expect(server.app.server.requestTimeout).toBe(30_000)
  const answered = async (bytes: number) => {
    const socket = await open(
      `GET /call HTTP/1.1\r\nHost: localhost\r\nx: ${'a'.repeat(bytes)}\r\nConnection: close\r\n\r\n`,
    )
    return (await textOf(socket)).slice(9, 12)
  }
  expect([await answered(15_000), await answered(17_000)]).toEqual(['200', '431'])
})
