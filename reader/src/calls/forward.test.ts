// The bridges here are servers that answer what the test says: what is asked of which, and what becomes of their answers.
import { createServer } from 'node:http'
import { createHttpServer } from '@iot/shared/http/server'
import { pino } from 'pino'
import { afterEach, expect, test } from 'vitest'
import { forwardedCalls } from './forward.js'

const KEY = 'a-full-key-0123456789'
const READ_KEY = 'a-read-key-0123456789'
const closers: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closers.splice(0)) await close()
})

type Answers = Record<string, [status: number, body: unknown] | 'dies'>

/** A bridge with these answers; all else is 404. */
async function bridge(answers: Answers) {
  const asked: string[] = []
  const keys = new Set<string>()
  const server = createServer((request, response) => {
    if (request.url === '/health/live') return void response.end('{}')
    const call = `${request.method} ${request.url}`
    asked.push(call)
    keys.add(String(request.headers.authorization))
    const answer = answers[call] ?? [404, { code: 'UNKNOWN' }]
    if (answer === 'dies') return void request.socket.destroy()
    response.writeHead(answer[0], { 'content-type': 'application/json' }).end(JSON.stringify(answer[1]))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  const close = () => new Promise((resolve) => server.close(resolve).closeAllConnections())
  closers.push(close)
  return { url: `http://127.0.0.1:${port}`, asked, keys, close }
}

async function build(urls: string[], has: Record<string, string> = {}, prefix = '') {
  const presence = { bridgeOf: (id: string) => has[id] }
  const options = { keys: [KEY], readKeys: [{ key: READ_KEY, prefix }], host: '127.0.0.1', allowedHosts: [] }
  const { app } = await createHttpServer(
    { title: 't', description: 'd', version: '1', ...options, callsPerSecond: 1000, trustProxy: false },
    [forwardedCalls({ urls, key: KEY, presence })],
    {},
    pino({ level: 'silent' }),
  )
  closers.push(() => app.close())
  return async (call: string, key = KEY) => {
    const [method, url] = call.split(' ') as ['GET' | 'POST', string]
    const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' }
    const reply = await app.inject({ method, url, headers, ...(method === 'POST' ? { body: '{"command":"x"}' } : {}) })
    return [reply.statusCode, reply.json()]
  }
}
const device = (id: string, last_seen: number | null) => ({ device_id: id, online: last_seen !== null, last_seen })
const unreachable = [503, expect.objectContaining({ code: 'BRIDGE_UNREACHABLE' })]

test('of several bridges lists are joined, the one answers that knows, and commands go where the device is', async () => {
  const sent = { status: 'sent' }
  const first = await bridge({
    'GET /devices': [200, ['a', 'c']],
    'GET /devices/b': [200, device('b', null)],
    'GET /devices/both': [200, device('both', 5)],
    'POST /devices/a/command?ttl=1s': [202, sent],
  })
  const second = await bridge({
    'GET /devices': [200, ['b', 'c']],
    'GET /devices/b': [200, device('b', 7)],
    'GET /devices/both': [200, device('both', 9)],
    'GET /commands/1': [200, { command_id: '1' }],
    'POST /devices/b/command': [202, sent],
    'POST /devices/new/command': [202, sent],
  })
  const call = await build([first.url, second.url], { b: second.url })
  expect(await call('GET /devices')).toEqual([200, ['a', 'b', 'c']])
  expect(await call('GET /devices/b')).toEqual([200, device('b', 7)])
  expect(await call('GET /devices/both')).toEqual([200, device('both', 9)])
  expect(await call('GET /commands/1')).toEqual([200, { command_id: '1' }])
  expect(await call('GET /commands/2')).toEqual([404, { code: 'UNKNOWN' }])
  for (const name of ['a/command?ttl=1s', 'b/command', 'new/command'])
    expect(await call(`POST /devices/${name}`)).toEqual([202, sent])
  expect(await call('POST /devices/nobody/command')).toEqual([404, { code: 'UNKNOWN' }])
  expect(first.asked).not.toContain('POST /devices/b/command')

  await first.close()
  expect(await call('GET /devices')).toEqual(unreachable)
  expect(await call('GET /devices/b')).toEqual([200, device('b', 7)])
  expect(await call('GET /devices/a')).toEqual(unreachable)
  expect(await call('GET /commands/1')).toEqual([200, { command_id: '1' }])
  expect(await call('GET /commands/2')).toEqual(unreachable)
  expect(await call('POST /devices/b/command')).toEqual([202, sent])
  expect(await call('POST /devices/nobody/command')).toEqual(unreachable)
})

test('a bridge that dies with a command in hand: nobody says that it was not sent, and no other one gets it', async () => {
  const first = await bridge({ 'POST /devices/a/command': 'dies' })
  const second = await bridge({ 'POST /devices/a/command': [202, {}] })
  const call = await build([first.url, second.url])
  expect(await call('POST /devices/a/command')).toEqual([504, expect.objectContaining({ code: 'BRIDGE_TIMEOUT' })])
  expect(second.asked).toEqual([])
})

test('paths go through as they came, and the bridge sees a key that it knows', async () => {
  const one = await bridge({
    'GET /devices': [200, ['site-a-1', 'site-b-1']],
    'GET /devices/..%2F%2e?x=%20': [200, {}],
  })
  const call = await build([one.url], {}, 'site-a-')
  expect(await call('GET /devices/..%2F%2e?x=%20')).toEqual([200, {}])
  expect(await call('GET /devices', READ_KEY)).toEqual([200, ['site-a-1']])
  expect([...one.keys]).toEqual([`Bearer ${KEY}`])
})
