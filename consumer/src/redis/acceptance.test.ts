// When Redis counts as refusing, when as accepting again, and how often it is asked meanwhile.
import type { Logger } from 'pino'
import { register } from 'prom-client'
import { expect, test } from 'vitest'
import { createAcceptance, LostError } from './acceptance.js'
import { RefusedError } from './replies.js'

async function count(): Promise<number> {
  const { values } = (await register.getSingleMetric('iot_standstills_total')?.get()) ?? { values: [] }
  return values.find(({ labels }) => labels.part === 'redis')?.value ?? 0
}

async function setUp() {
  const lines: string[] = []
  const logger = {
    warn: ({ error }: { error: string }, message: string) => lines.push(`${message}: ${error}`),
    info: (message: string) => lines.push(message),
  } as unknown as Logger
  const clock = { nowMs: 1_000_000 }
  const acceptance = createAcceptance(logger, () => clock.nowMs)
  const before = await count()
  return { lines, clock, acceptance, standstills: async () => (await count()) - before }
}

async function accepting() {
  const parts = await setUp()
  parts.acceptance.started()
  parts.acceptance.probed()
  parts.lines.length = 0
  return parts
}

const readonly = () => new RefusedError("READONLY You can't write against a read only replica.")
const WRONG = 'Redis is not accepting writes; retrying'
const RIGHT = 'Redis is accepting writes again'

test('not ready before the first success, which is logged', async () => {
  const { acceptance, lines, standstills } = await setUp()
  acceptance.started()
  expect(acceptance.check()).toBe('not connected yet')
  acceptance.probed()
  expect(acceptance.check()).toBeNull()
  expect(lines).toEqual(['Redis is accepting writes'])
  expect(await standstills()).toBe(0)
})

test('a refusal counts at once: one line, one standstill, however often it is met', async () => {
  const { acceptance, lines, standstills } = await accepting()
  for (let i = 0; i < 50; i++) acceptance.writeFailed(readonly())
  acceptance.probeFailed(new RefusedError('READONLY in the words of another command'))
  expect(acceptance.check()).toContain('READONLY')
  acceptance.wrote()
  expect(acceptance.check()).toBeNull()
  expect(lines).toEqual([`${WRONG}: ${readonly().message}`, RIGHT])
  expect(await standstills()).toBe(1)
})

test('a connection that is back within two seconds is no standstill', async () => {
  const { acceptance, lines, clock, standstills } = await accepting()
  acceptance.connectionFailed(new LostError('connection lost'))
  clock.nowMs += 1900
  acceptance.tick()
  acceptance.probed()
  clock.nowMs += 10_000
  acceptance.tick()
  expect(acceptance.check()).toBeNull()
  expect(lines).toEqual([])
  expect(await standstills()).toBe(0)
})

test('one that stays lost is, with the reason for which there is none', async () => {
  const { acceptance, lines, clock } = await accepting()
  acceptance.connectionFailed(new LostError('connection lost'))
  acceptance.writeFailed(new LostError('connection lost'))
  acceptance.connectionFailed(new Error('connect ECONNREFUSED 127.0.0.1:6379'))
  acceptance.connectionFailed(new LostError('connection lost'))
  clock.nowMs += 2000
  acceptance.tick()
  expect(acceptance.check()).toBe('connect ECONNREFUSED 127.0.0.1:6379')
  acceptance.probeFailed(new LostError('not connected'))
  acceptance.tick()
  expect(lines).toEqual([`${WRONG}: connect ECONNREFUSED 127.0.0.1:6379`])
})

test('connections that are lost at every write are a standstill, though each is made at once', async () => {
  const { acceptance, clock } = await accepting()
  for (let i = 0; i < 5; i++) {
    acceptance.admit()
    acceptance.connectionFailed(new LostError('connection lost'))
    acceptance.writeFailed(new LostError('connection lost'))
    clock.nowMs += 500
    acceptance.probed() // on the new connection
  }
  acceptance.tick()
  expect(acceptance.check()).toBe('connection lost')
})

test('while Redis refuses, one write in half a second is let through', async () => {
  const { acceptance, clock } = await accepting()
  acceptance.admit()
  acceptance.writeFailed(readonly())
  let admitted = 0
  for (let i = 0; i < 1000; i++) {
    try {
      acceptance.admit()
      admitted++
      acceptance.writeFailed(readonly())
    } catch (error) {
      expect((error as Error).message).toContain('READONLY')
    }
    clock.nowMs += 10
  }
  expect(admitted).toBe(20)
  clock.nowMs += 500
  acceptance.admit()
  acceptance.wrote()
  for (let i = 0; i < 100; i++) acceptance.admit()
})

test('a probe does not end what a batch has met, until that batch has gone elsewhere', async () => {
  const { acceptance, clock } = await accepting()
  acceptance.admit()
  acceptance.writeFailed(new RefusedError('ERR ACL failure in script: No permissions to access a channel'))
  acceptance.probed()
  expect(acceptance.check()).toContain('No permissions')
  clock.nowMs += 14_000
  acceptance.probed()
  expect(acceptance.check()).toContain('No permissions')
  clock.nowMs += 1000
  acceptance.probed()
  expect(acceptance.check()).toBeNull()
})

test('a probe is due after five idle seconds, and soon while something fails', async () => {
  const { acceptance, clock } = await accepting()
  const due = (seconds: number) =>
    Array.from({ length: seconds }, () => {
      clock.nowMs += 1000
      return acceptance.tick()
    }).filter(Boolean).length
  due(5)
  expect(due(20)).toBe(4)
  acceptance.probeFailed(readonly())
  expect(due(20)).toBe(20)
  acceptance.probed()
  for (let i = 0; i < 20; i++) {
    acceptance.admit()
    acceptance.wrote()
    expect(due(1)).toBe(0) // who writes needs no probe
  }
})

test('a Redis that was full is not trusted at once: readiness does not flap with each batch that has room', async () => {
  const { acceptance, clock, standstills, lines } = await accepting()
  for (let i = 0; i < 20; i++) {
    acceptance.admit()
    acceptance.writeFailed(new RefusedError("OOM command not allowed when used memory > 'maxmemory'."))
    clock.nowMs += 500
    acceptance.admit()
    acceptance.wrote()
    expect(acceptance.check()).toContain('OOM')
    clock.nowMs += 500
  }
  clock.nowMs += 1000
  acceptance.probed()
  expect(acceptance.check()).toBeNull()
  expect(await standstills()).toBe(1)
  expect(lines).toHaveLength(2)
})

test('news in another standstill, or of another kind later on, is another line', async () => {
  const { acceptance, clock, lines, standstills } = await accepting()
  acceptance.probeFailed(new RefusedError("OOM command not allowed when used memory > 'maxmemory'."))
  clock.nowMs += 10_000
  acceptance.probeFailed(readonly())
  acceptance.probed()
  expect(lines).toHaveLength(3)
  expect(await standstills()).toBe(1)
})
