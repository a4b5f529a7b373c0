import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { loadIdentity } from './identity.js'

let dir: string
let lines: { level: number; msg: string; lastClientId?: string }[]
const logger = pino({ level: 'info' }, { write: (line: string) => lines.push(JSON.parse(line)) })
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'iot-identity-'))
  lines = []
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

const mode = (name: string) => statSync(join(dir, name)).mode & 0o777

test('created once, kept, and for the owner alone', () => {
  const created = loadIdentity(dir, undefined, logger)
  expect(loadIdentity(dir, undefined, logger)).toEqual(created)
  expect(mode('mqtt-client-id')).toBe(0o600)
  expect(mode('mqtt-names.json')).toBe(0o600)
  expect(lines).toEqual([])
})

test('no name tells another one, and no two installations share one', () => {
  const names = Object.values(loadIdentity(dir, undefined, logger))
  const others = Object.values(loadIdentity(join(dir, 'other'), undefined, logger))
  const secrets = [...names, ...others].map((name) => name.replace(/^(canary\/|iot-bridge-)/, ''))
  expect(new Set(secrets).size).toBe(8)
  for (const secret of secrets) {
    expect(secret).toMatch(/^([0-9a-f]{16}|[0-9a-f]{32})$/)
    for (const other of secrets) if (other !== secret) expect(other).not.toContain(secret)
  }
})

test('the canary topics of a configured id do not follow from it', () => {
  const { clientId, controlClientId, ...topics } = loadIdentity(dir, 'hall-7', logger)
  expect([clientId, controlClientId]).toEqual(['hall-7', 'hall-7-control'])
  for (const topic of Object.values(topics)) expect(topic).toMatch(/^canary\/[0-9a-f]{32}$/)
  const elsewhere = loadIdentity(join(dir, 'other'), 'hall-7', logger)
  expect(elsewhere.canaryTopic).not.toBe(topics.canaryTopic)
})

test('an id that an earlier version kept stays, and becomes unreadable for others', () => {
  writeFileSync(join(dir, 'mqtt-client-id'), 'iot-bridge-0123456789abcdef\n', { mode: 0o644 })
  expect(loadIdentity(dir, undefined, logger).clientId).toBe('iot-bridge-0123456789abcdef')
  expect(mode('mqtt-client-id')).toBe(0o600)
})

test('a change of the client id is said once, with the id that is left behind', () => {
  const { clientId, canaryTopic } = loadIdentity(dir, undefined, logger)
  for (const _start of [1, 2]) expect(loadIdentity(dir, 'renamed', logger).canaryTopic).toBe(canaryTopic)
  expect(lines).toHaveLength(1)
  expect(lines[0]).toMatchObject({ level: 40, lastClientId: clientId, clientId: 'renamed' })
})

test('a damaged file is replaced', () => {
  writeFileSync(join(dir, 'mqtt-names.json'), '{"canaryTopic":')
  const created = loadIdentity(dir, 'a', logger)
  expect(loadIdentity(dir, 'a', logger)).toEqual(created)
  expect(JSON.parse(readFileSync(join(dir, 'mqtt-names.json'), 'utf8')).lastClientId).toBe('a')
})

test('a directory that cannot be used: a warning where an id is configured, else an error', () => {
  const file = join(dir, 'file')
  writeFileSync(file, '')
  chmodSync(file, 0o444)
  expect(loadIdentity(join(file, 'data'), 'a', logger).clientId).toBe('a')
  expect(lines).toMatchObject([{ level: 40, msg: expect.stringContaining('DATA_DIR') }])
  expect(() => loadIdentity(join(file, 'data'), undefined, logger)).toThrow()
})
