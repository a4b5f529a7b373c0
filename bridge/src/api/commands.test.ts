// The calls themselves, with a broker that is a function.
import { fastify } from 'fastify'
import { serializerCompiler, validatorCompiler } from 'fastify-type-provider-zod'
import { expect, test } from 'vitest'
import type { CommandOutcome } from '../commands.js'
import { createPresence } from '../presence.js'
import { createCommandRecords } from './command-records.js'
import { addCommandRoutes } from './commands.js'
import { addDeviceRoutes } from './devices.js'

const acknowledged: CommandOutcome = { result: 'acknowledged', published: true, hadSubscribers: true }

function build(outcomes: CommandOutcome[] = []) {
  const app = fastify()
  app.setValidatorCompiler(validatorCompiler)
  app.setSerializerCompiler(serializerCompiler)
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (_request, body, done) => done(null, body))
  const presence = createPresence(60, 200_000)
  const records = createCommandRecords()
  const sent: string[] = []
  const send = async (_deviceId: string, text: string) => {
    sent.push(text)
    return outcomes.shift() ?? acknowledged
  }
  addDeviceRoutes(app, presence)
  addCommandRoutes(app, presence, records, send, 60_000)
  presence.seen('d')
  const command = (body: string, query = '', headers: Record<string, string> = {}) =>
    app.inject({
      method: 'POST',
      url: `/devices/d/command${query}`,
      headers: { 'content-type': 'application/json', ...headers },
      body,
    })
  return { app, presence, records, sent, command }
}

test.each<[CommandOutcome, number, string]>([
  [{ result: 'disconnected', published: false }, 503, 'BROKER_NOT_CONNECTED'],
  [{ result: 'closed', published: true }, 503, 'BROKER_CLOSED_CONNECTION'],
  [{ result: 'timeout', published: true }, 504, 'BROKER_TIMEOUT'],
  [{ result: 'refused', published: true, reason: 'Not authorized' }, 502, 'BROKER_REFUSED'],
])('%o', async (outcome, status, code) => {
  const { command } = build([outcome])
  const reply = await command('{"command":"x"}')
  expect(reply.json()).toMatchObject({ statusCode: status, code })
  if (outcome.result === 'refused') expect(reply.json().message).toContain('Not authorized')
})

test('the caller is told that nobody was subscribed', async () => {
  const { app, command } = build([{ ...acknowledged, hadSubscribers: false } as CommandOutcome])
  const reply = await command('{"command":"x","command_id":"c"}')
  expect([reply.statusCode, reply.json()]).toEqual([
    202,
    { status: 'sent', device_id: 'd', command_id: 'c', no_subscribers: true },
  ])
  expect((await app.inject('/commands/c')).json()).toMatchObject({ status: 'acknowledged', no_subscribers: true })
})

test('after an error by which nothing was sent the same key and the same id may try again', async () => {
  const { command, sent } = build([{ result: 'timeout', published: false }, acknowledged])
  const again = () => command('{"command":"x","command_id":"mine"}', '', { 'idempotency-key': 'k' })
  expect((await again()).statusCode).toBe(504)
  expect((await again()).statusCode).toBe(202)
  expect((await again()).statusCode).toBe(202)
  expect(sent).toHaveLength(2)
})

test('a key belongs to its caller', async () => {
  const { command, sent } = build()
  const as = (caller: string) => command('{"command":"x"}', '', { 'idempotency-key': 'k', authorization: caller })
  const [first, second, third] = [await as('Bearer one'), await as('Bearer two'), await as('Bearer one')]
  expect(first.json().command_id).not.toBe(second.json().command_id)
  expect(third.json()).toEqual(first.json())
  expect(sent).toHaveLength(2)
})

test('calls that wait are bounded', async () => {
  const { command, records } = build()
  const waits = Array.from({ length: 1001 }, () => command('{"command":"x"}', '?wait=60s'))
  const refused = await Promise.race(waits)
  expect(refused.json()).toMatchObject({ statusCode: 503, code: 'TOO_MANY_WAITING' })
  records.stop()
  expect((await Promise.all(waits)).filter(({ statusCode }) => statusCode === 202)).toHaveLength(1000)
})

test.each(['?wait=61s', '?wait=383028s', '?ttl=1441m', '?wait=0s'])('%s is refused', async (query) => {
  const { command, sent } = build()
  expect((await command('{"command":"x"}', query)).statusCode).toBe(400)
  expect(sent).toEqual([])
})

test("a device's word comes out as it went in, however deep", async () => {
  const { command, records, sent } = build()
  const pending = command('{"command":"x","command_id":"c"}', '?wait=60s')
  await expect.poll(() => sent.length).toBe(1)
  const result = `{"n":12345678901234567890,"deep":${'['.repeat(7000)}${']'.repeat(7000)}}`
  await expect
    .poll(() => records.reply('d', Buffer.from(`{"command_id":"c","status":"succeeded","result":${result}}`)))
    .toBe('matched')
  const reply = await pending
  expect(reply.statusCode).toBe(200)
  expect(reply.body).toContain(result)
})

test('a hundred thousand devices in detail, in pieces', async () => {
  const { app, presence } = build()
  for (let index = 0; index < 100_000; index++) presence.seen(`device-${index}`)
  const reply = await app.inject('/devices?details=true')
  expect(reply.json()).toHaveLength(100_001)
  expect((await app.inject('/devices')).json()).toHaveLength(100_001)
})
