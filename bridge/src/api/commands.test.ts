// The calls themselves, with a broker that is a function.
import { createHttpServer } from '@iot/shared/http/server'
import { pino } from 'pino'
import { afterEach, expect, test } from 'vitest'
import type { CommandOutcome } from '../commands.js'
import { createPresence } from '../presence.js'
import { createCommandRecords } from './command-records.js'
import { commandCalls } from './commands.js'

const KEYS = ['key-of-one-0123456789', 'key-of-two-0123456789']
const acknowledged: CommandOutcome = { result: 'acknowledged', hadSubscribers: true }
const silent = pino({ level: 'silent' })
const closers: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const close of closers.splice(0)) await close()
})

async function build(outcomes: (CommandOutcome | Promise<CommandOutcome>)[] = [], keys: string[] = []) {
  const presence = createPresence({ timeoutSeconds: 60, maxDevices: 10 }, silent)
  const records = createCommandRecords()
  const sent: string[] = []
  const send = async (_deviceId: string, text: string) => {
    sent.push(text)
    return outcomes.shift() ?? acknowledged
  }
  const server = await createHttpServer(
    {
      title: 't',
      description: 'd',
      version: '1',
      keys,
      readKeys: [],
      host: '127.0.0.1',
      allowedHosts: [],
      callsPerSecond: 1_000_000,
      trustProxy: false,
    },
    [commandCalls({ presence, records, send, defaultTtlMs: 60_000 })],
    {},
    silent,
  )
  closers.push(() => server.app.close())
  presence.seen('d')
  const command = (body: string, query = '', headers: Record<string, string> = {}) =>
    server.app.inject({
      method: 'POST',
      url: `/devices/d/command${query}`,
      headers: { 'content-type': 'application/json', ...headers },
      body,
    })
  const reply = (commandId: string, result: string) =>
    records.reply('d', Buffer.from(`{"command_id":"${commandId}","status":"succeeded","result":${result}}`))
  return { ...server, presence, records, sent, command, reply }
}

test.each<[CommandOutcome, number, string]>([
  [{ result: 'disconnected', published: false }, 503, 'BROKER_NOT_CONNECTED'],
  [{ result: 'closed' }, 503, 'BROKER_CLOSED_CONNECTION'],
  [{ result: 'timeout', published: true }, 504, 'BROKER_TIMEOUT'],
  [{ result: 'refused', reason: 'Not authorized' }, 502, 'BROKER_REFUSED'],
])('%o', async (outcome, status, code) => {
  const { command } = await build([outcome])
  const reply = await command('{"command":"x"}')
  expect(reply.json()).toMatchObject({ statusCode: status, code })
  if (outcome.result === 'refused') expect(reply.json().message).toContain('Not authorized')
})

test('the caller is told that nobody was subscribed, at once even when it would wait', async () => {
  const unheard: CommandOutcome = { result: 'acknowledged', hadSubscribers: false }
  const { app, command } = await build([unheard, unheard])
  for (const [id, query] of [
    ['a', ''],
    ['b', '?wait=60s'],
  ]) {
    const reply = await command(`{"command":"x","command_id":"${id}"}`, query)
    const body = { status: 'sent', device_id: 'd', command_id: id, no_subscribers: true }
    expect([reply.statusCode, reply.json()]).toEqual([202, body])
    expect((await app.inject(`/commands/${id}`)).json()).toMatchObject({ status: 'acknowledged', no_subscribers: true })
  }
})

test.each<CommandOutcome>([
  { result: 'timeout', published: false },
  { result: 'disconnected', published: false },
  { result: 'refused', reason: 'Quota exceeded' },
])('after %o nothing can arrive: the same key and the same id may try again', async (outcome) => {
  const { command, sent } = await build([outcome])
  const again = () => command('{"command":"x","command_id":"mine"}', '', { 'idempotency-key': 'k' })
  expect((await again()).statusCode).toBeGreaterThanOrEqual(500)
  expect((await again()).statusCode).toBe(202)
  expect((await again()).statusCode).toBe(202)
  expect(sent).toHaveLength(2)
})

test.each<CommandOutcome>([
  { result: 'timeout', published: true },
  { result: 'disconnected', published: true },
  { result: 'closed' },
])('after %o the command may arrive: the same key gets the same answer, and nothing is sent', async (outcome) => {
  const { command, sent } = await build([outcome])
  const again = () => command('{"command":"x","command_id":"mine"}', '', { 'idempotency-key': 'k' })
  const [first, second] = [await again(), await again()]
  expect(second.statusCode).toBe(first.statusCode)
  expect(second.body).toBe(first.body)
  expect((await command('{"command":"x","command_id":"mine"}')).json().code).toBe('COMMAND_ID_IN_USE')
  expect(sent).toHaveLength(1)
})

test('an Idempotency-Key belongs to its caller', async () => {
  const { command, sent } = await build([], KEYS)
  const as = (key: string | undefined) =>
    command('{"command":"x"}', '', { 'idempotency-key': 'k', authorization: `Bearer ${key}` })
  const [first, second, third] = [await as(KEYS[0]), await as(KEYS[1]), await as(KEYS[0])]
  expect(first.json().command_id).not.toBe(second.json().command_id)
  expect(third.json()).toEqual(first.json())
  expect(sent).toHaveLength(2)
})

test("what a repeated key gets is the device's word as it is kept: digits as written", async () => {
  const { command, reply, sent } = await build()
  const ask = () => command('{"command":"x","command_id":"c"}', '?wait=60s', { 'idempotency-key': 'k' })
  const [first, second] = [ask(), ask()]
  await expect.poll(() => sent.length).toBe(1)
  await expect.poll(() => reply('c', '{"n":1.10}')).toBe('matched')
  for (const answer of [await first, await second, await ask()]) {
    expect(answer.statusCode).toBe(200)
    expect(answer.body).toContain('"result":{"n":1.10}')
  }
  expect(sent).toHaveLength(1)
})

test.each([
  ['that wait for devices', '?wait=60s', {}],
  ['that repeat a key of one that waits', '?wait=60s', { 'idempotency-key': 'k' }],
])('calls %s are bounded', async (_what, query, headers) => {
  const { command, records } = await build()
  const waits = Array.from({ length: 1001 }, () => command('{"command":"x"}', query, headers))
  const refused = await Promise.race(waits)
  expect(refused.json()).toMatchObject({ statusCode: 503, code: 'TOO_MANY_WAITING' })
  expect((await command('{"command":"x"}')).statusCode).toBe(202) // others go on
  records.stop()
  expect((await Promise.all(waits)).filter(({ statusCode }) => statusCode === 202)).toHaveLength(1000)
})

test('calls that wait for a broker that says nothing are bounded', async () => {
  let answer = (_outcome: CommandOutcome) => {}
  const frozen = new Promise<CommandOutcome>((resolve) => {
    answer = resolve
  })
  const { command } = await build(Array(1000).fill(frozen))
  const waits = Array.from({ length: 1001 }, () => command('{"command":"x"}'))
  expect((await Promise.race(waits)).json()).toMatchObject({ statusCode: 503, code: 'BUSY' })
  answer({ result: 'timeout', published: false })
  expect((await Promise.all(waits)).filter(({ statusCode }) => statusCode === 504)).toHaveLength(1000)
  expect((await command('{"command":"x"}')).statusCode).toBe(202)
})

test('a stop ends what waits with a proper answer, and what would wait after it', async () => {
  const { command, sent, stop, app } = await build()
  await app.ready()
  const pending = command('{"command":"x"}', '?wait=60s')
  await expect.poll(() => sent.length).toBe(1)
  const startedMs = performance.now()
  await stop(5000)
  expect((await pending).json()).toMatchObject({ status: 'sent', device_id: 'd' })
  expect(performance.now() - startedMs).toBeLessThan(1000)
})

test.each([
  '?wait=61s',
  '?wait=383028s',
  '?wait=60001ms',
  '?ttl=1441m',
  '?wait=0s',
  '?wait=soon',
])('%s is refused', async (query) => {
  const { command, sent } = await build()
  const reply = await command('{"command":"x"}', query)
  expect([reply.statusCode, reply.json().code]).toEqual([400, 'INVALID_QUERY'])
  expect(sent).toEqual([])
})

test.each([
  '{}',
  '[]',
  '"start"',
  '{"command":""}',
  '{"command":1}',
  '{',
  '',
  '{"command":"x","command_id":7}',
])('the body %s is refused', async (body) => {
  const { command, sent } = await build()
  const reply = await command(body)
  expect([reply.statusCode, reply.json().code]).toEqual([400, 'INVALID_COMMAND'])
  expect(sent).toEqual([])
})

test('impossible ids, unknown ones, and devices that are not online', async () => {
  const { app } = await build()
  const code = async (url: string, method: 'GET' | 'POST' = 'POST') => {
    const call = {
      method,
      url,
      ...(method === 'POST' && { headers: { 'content-type': 'application/json' }, body: '{"command":"x"}' }),
    }
    return (await app.inject(call)).json().code
  }
  expect(await code('/devices/a%2Fb/command')).toBe('INVALID_DEVICE_ID')
  expect(await code(`/devices/${'x'.repeat(257)}/command`)).toBe('INVALID_DEVICE_ID')
  expect(await code('/devices/nobody/command')).toBe('DEVICE_OFFLINE')
  expect(await code('/commands/unknown', 'GET')).toBe('COMMAND_UNKNOWN')
  expect(await code(`/commands/${'x'.repeat(201)}`, 'GET')).toBe('INVALID_ID')
})

test("a device's word comes out as it went in, however deep", async () => {
  const { app, command, reply, sent } = await build()
  const pending = command('{"command":"x","command_id":"c"}', '?wait=60s')
  await expect.poll(() => sent.length).toBe(1)
  const result = `{"n":12345678901234567890,"deep":${'['.repeat(7000)}${']'.repeat(7000)}}`
  await expect.poll(() => reply('c', result)).toBe('matched')
  for (const answer of [await pending, await app.inject('/commands/c')]) {
    expect(answer.statusCode).toBe(200)
    expect(answer.body).toContain(result)
  }
})
