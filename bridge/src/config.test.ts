import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ConfigError, loadConfig } from '@iot/shared/config'
import { checkApiAccess } from '@iot/shared/http/config'
import { expect, test } from 'vitest'
import { bridgeNeeds, bridgeSchema, bridgeWarnings } from './config.js'

const load = (env: NodeJS.ProcessEnv) => loadConfig(bridgeSchema, env, bridgeNeeds)
const linesOf = (env: NodeJS.ProcessEnv): string[] => {
  try {
    load(env)
    return []
  } catch (error) {
    return (error as ConfigError).lines
  }
}
const KEYS = ['first-key-0123456789', 'second-key-0123456789']

test('keys stand one a line or with commas, and only those that can be shown', () => {
  const dir = mkdtempSync(join(tmpdir(), 'iot-keys-'))
  const file = join(dir, 'keys')
  writeFileSync(file, `${KEYS[0]}\n\n  ${KEYS[1]}\r\n`)
  expect(load({ API_KEY_FILE: file }).API_KEY).toEqual(KEYS)
  rmSync(dir, { recursive: true })
  expect(load({ API_KEY: KEYS.join(', ') }).API_KEY).toEqual(KEYS)
  const wrong: [string, string][] = [
    ['short', 'each key must have 16 characters or more'],
    [`${KEYS[0]},short`, 'each key must have 16 characters or more'],
    ['Schlüssel-0123456789', 'a key must be of visible ASCII characters'],
    ['a key with its spaces', 'a key must be of visible ASCII characters'],
    [' , ', 'must have a key'],
  ]
  for (const [API_KEY, words] of wrong) expect(linesOf({ API_KEY })).toEqual([`API_KEY: ${words}`])
})

test('read keys stand with the prefix that they are good for, or without', () => {
  expect(load({ API_READ_KEY: `${KEYS[0]}:site-a:1-, ${KEYS[1]}` }).API_READ_KEY).toEqual([
    { key: KEYS[0], prefix: 'site-a:1-' },
    { key: KEYS[1], prefix: '' },
  ])
  expect(linesOf({ API_READ_KEY: `${KEYS[0]}:a,${KEYS[0]}:b` })).toEqual(['API_READ_KEY: each key must stand once'])
  expect(linesOf({ API_READ_KEY: 'short:site-a-long-enough' })).toHaveLength(1)
})

test.each([
  ['false', false],
  ['true', true],
  ['10.0.0.1', ['10.0.0.1']],
  ['10.0.0.0/8, fd00::/8', ['10.0.0.0/8', 'fd00::/8']],
])('API_TRUST_PROXY=%s', (API_TRUST_PROXY, value) => {
  expect(load({ API_TRUST_PROXY }).API_TRUST_PROXY).toEqual(value)
})

test.each([
  '1',
  'yes',
  'proxy.example',
  '10.0.0.0/33',
  '10.0.0.0/',
  '10.0.0.0/8/8',
  '::/129',
])('API_TRUST_PROXY=%s is refused', (API_TRUST_PROXY) => expect(linesOf({ API_TRUST_PROXY })).toHaveLength(1))

test.each([
  'api.example:8000',
  'http://api.example',
  '*.example',
  'a b',
])('API_ALLOWED_HOSTS=%s is refused', (API_ALLOWED_HOSTS) => expect(linesOf({ API_ALLOWED_HOSTS })).toHaveLength(1))

test('what counts as a sign of life', () => {
  expect(load({}).PRESENCE_FROM).toEqual(['hello'])
  expect(load({ PRESENCE_FROM: 'hello, data' }).PRESENCE_FROM).toEqual(['hello', 'data'])
  for (const PRESENCE_FROM of ['data', 'hello,date', ',']) expect(linesOf({ PRESENCE_FROM })).toHaveLength(1)
})

test('an API that strangers could reach without a key is refused, unless that is said', () => {
  const check = (env: NodeJS.ProcessEnv) => () => checkApiAccess(load(env), 'API_HOST', load(env).API_HOST)
  expect(check({ API_HOST: '0.0.0.0' })).toThrow(ConfigError)
  for (const env of [{}, { API_HOST: '::1' }, { API_HOST: '0.0.0.0', API_AUTH: 'none' }])
    expect(check(env)).not.toThrow()
})

test('a password in the clear, and an API that is open to everybody, are warned of', () => {
  const warnings = (env: NodeJS.ProcessEnv) => bridgeWarnings(load(env))
  expect(warnings({ MQTT_USERNAME: 'u' })).toEqual([])
  for (const MQTT_URL of ['mqtt://broker.example', 'ws://broker.example', 'tcp://10.0.0.1:1883'])
    expect(warnings({ MQTT_URL, MQTT_PASSWORD: 'x' })).toEqual([expect.stringMatching(/^MQTT_PASSWORD .*mqtts/)])
  expect(warnings({ MQTT_URL: 'mqtt://u:x@broker.example' })).toHaveLength(1)
  for (const MQTT_URL of ['mqtts://broker.example', 'mqtt://127.0.0.1', 'mqtt://[::1]', 'mqtt://localhost:1'])
    expect(warnings({ MQTT_URL, MQTT_PASSWORD: 'x' }), MQTT_URL).toEqual([])
  expect(warnings({ API_HOST: '0.0.0.0', API_AUTH: 'none' })).toEqual([expect.stringContaining('API_KEY')])
})
