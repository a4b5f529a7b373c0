import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { z } from 'zod'
import { commonNeeds, commonSchema, commonWarnings } from './common-config.js'
import { ConfigError, integer, loadConfig, type Need, pemFile, url } from './config.js'

const shape = {
  ...commonSchema,
  BATCH_SIZE: integer(500, 1, 1000),
  REDIS_URL: url('redis://127.0.0.1:6379', ['redis']),
  API_KEY: z.string().min(16, 'must be at least 16 characters').optional(),
  MQTT_URL: url('mqtt://127.0.0.1:1883', ['mqtt', 'mqtts']),
  MQTT_CA_FILE: pemFile(),
  MQTT_CERT_FILE: pemFile(),
  MQTT_KEY_FILE: pemFile(),
}

const needs: Need[] = [
  ...commonNeeds,
  ['MQTT_CA_FILE', 'MQTT_URL', ['mqtts://', 'wss://']],
  ['MQTT_KEY_FILE', 'MQTT_CERT_FILE'],
]

const linesOf = (env: NodeJS.ProcessEnv): string[] => {
  try {
    loadConfig(shape, env, needs)
    return []
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError)
    return (error as ConfigError).lines
  }
}

test('an empty environment gives the defaults, and an empty variable counts as not given', () => {
  const expected = {
    KAFKA_BROKERS: ['127.0.0.1:19092'],
    KAFKA_TOPIC: 'iot-data',
    KAFKA_TOPIC_PARTITIONS: 6,
    KAFKA_RETENTION_HOURS: 24,
    KAFKA_RETENTION_BYTES: 0,
    HISTORY_RETENTION_SECONDS: 18_000,
    LOG_LEVEL: 'info',
    SHUTDOWN_TIMEOUT_MS: 10_000,
    KAFKA_TLS: false,
    BATCH_SIZE: 500,
    REDIS_URL: 'redis://127.0.0.1:6379',
    MQTT_URL: 'mqtt://127.0.0.1:1883',
  }
  expect(loadConfig(shape, {})).toEqual(expected)
  expect(loadConfig(shape, { BATCH_SIZE: '', KAFKA_TOPIC: '' })).toEqual(expected)
})

test('values are read from text', () => {
  const env = { KAFKA_BROKERS: 'a:9092, b:9093', BATCH_SIZE: '7', LOG_LEVEL: 'debug' }
  expect(loadConfig(shape, env)).toMatchObject({ KAFKA_BROKERS: ['a:9092', 'b:9093'], BATCH_SIZE: 7 })
})

test('each mistake has one line that names the variable, and all are told at once', () => {
  expect(
    linesOf({ BATCH_SIZE: '0', KAFKA_BROKERS: 'localhost', REDIS_URL: 'http://x', SHUTDOWN_TIMEOUT_MS: '1s' }),
  ).toEqual([
    'KAFKA_BROKERS: must be host:port, or several with commas',
    'SHUTDOWN_TIMEOUT_MS: must be a whole number',
    'BATCH_SIZE: must be at least 1',
    'REDIS_URL: must be a URL that begins with redis://',
  ])
  expect(linesOf({ LOG_LEVEL: 'loud' })[0]).toMatch(/^LOG_LEVEL: .*info/)
})

const dir = mkdtempSync(join(tmpdir(), 'iot-config-'))
afterAll(() => rmSync(dir, { recursive: true }))
const file = (name: string, content: string) => {
  writeFileSync(join(dir, name), content)
  return join(dir, name)
}
const sasl = { KAFKA_SASL_MECHANISM: 'plain', KAFKA_USERNAME: 'me' }

test('a secret may be given as a file, its white space left out', () => {
  const API_KEY_FILE = file('api-key', ' 0123456789abcdef\n')
  const KAFKA_PASSWORD_FILE = file('password', 'two words\n')
  expect(loadConfig(shape, { ...sasl, API_KEY_FILE, KAFKA_PASSWORD_FILE })).toMatchObject({
    API_KEY: '0123456789abcdef',
    KAFKA_PASSWORD: 'two words',
  })
})

test('a secret file that cannot be used has one line that names it and not its content', () => {
  const secret = 'short-secret'
  const found = file('secret', secret)
  const absent = join(dir, 'absent')
  expect(linesOf({ ...sasl, KAFKA_PASSWORD_FILE: absent })).toEqual([
    `KAFKA_PASSWORD_FILE: cannot read ${absent} (ENOENT)`,
  ])
  expect(linesOf({ ...sasl, KAFKA_PASSWORD_FILE: dir })).toEqual([`KAFKA_PASSWORD_FILE: cannot read ${dir} (EISDIR)`])
  expect(linesOf({ ...sasl, KAFKA_PASSWORD_FILE: found, KAFKA_PASSWORD: secret })).toEqual([
    'KAFKA_PASSWORD_FILE: give either KAFKA_PASSWORD or KAFKA_PASSWORD_FILE',
  ])
  const empty = file('empty', '\n')
  expect(linesOf({ ...sasl, KAFKA_PASSWORD_FILE: empty })).toEqual([`KAFKA_PASSWORD_FILE: ${empty} is empty`])
  expect(linesOf({ API_KEY_FILE: found })).toEqual(['API_KEY: must be at least 16 characters'])
})

test('only secrets may be given as a file', () => {
  expect(linesOf({ BATCH_SIZE_FILE: file('size', '7') })[0]).toMatch(/^BATCH_SIZE_FILE: .*BATCH_SIZE\?$/)
})

test('what Kubernetes sets for a service of such a name is not ours', () => {
  const ports = { ...shape, API_PORT: integer(8000, 0, 65_535) }
  const env = { API_PORT: 'tcp://10.0.0.1:80', REDIS_PORT: 'tcp://10.0.0.1:6379', KAFKA_SERVICE_HOST: '10.0.0.1' }
  expect(loadConfig(ports, env)).toMatchObject({ API_PORT: 8000 })
})

test('a password in the clear is warned of', () => {
  const access = { ...sasl, KAFKA_PASSWORD: 'x' }
  const warnings = (env: NodeJS.ProcessEnv) => commonWarnings(loadConfig(commonSchema, { ...access, ...env }))
  expect(warnings({})).toEqual([expect.stringMatching(/^KAFKA_PASSWORD .*KAFKA_TLS/)])
  expect(warnings({ KAFKA_TLS: 'true' })).toEqual([])
  expect(warnings({ KAFKA_SASL_MECHANISM: 'scram-sha-256' })).toEqual([])
})

test('a certificate that cannot be used is told at start', () => {
  const MQTT_URL = 'mqtts://127.0.0.1:8883'
  const broken = file('broken.pem', '-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n')
  expect(linesOf({ MQTT_URL, MQTT_CA_FILE: file('text', 'text') })).toEqual([
    `MQTT_CA_FILE: ${join(dir, 'text')} is no PEM file`,
  ])
  const absent = join(dir, 'absent')
  expect(linesOf({ MQTT_URL, MQTT_CA_FILE: absent })).toEqual([`MQTT_CA_FILE: cannot read ${absent} (ENOENT)`])
  expect(linesOf({ MQTT_URL, MQTT_CERT_FILE: broken, MQTT_KEY_FILE: broken })).toEqual([
    expect.stringMatching(/^MQTT_CERT_FILE: cannot be used \(.+\)$/),
  ])
})

test('a setting that would not be used is told', () => {
  const pem = file('any.pem', '-----BEGIN CERTIFICATE-----\n')
  expect(linesOf({ MQTT_CA_FILE: pem })).toEqual(['MQTT_CA_FILE: needs MQTT_URL with mqtts:// or wss://'])
  expect(linesOf({ KAFKA_CA_FILE: pem })).toEqual(['KAFKA_CA_FILE: needs KAFKA_TLS with true'])
  expect(linesOf({ MQTT_URL: 'mqtts://a', MQTT_KEY_FILE: pem })).toEqual(['MQTT_KEY_FILE: needs MQTT_CERT_FILE'])
  expect(linesOf(sasl)).toEqual(['KAFKA_SASL_MECHANISM: needs KAFKA_PASSWORD'])
  expect(linesOf({ KAFKA_PASSWORD: 'x' })).toEqual(['KAFKA_PASSWORD: needs KAFKA_SASL_MECHANISM'])
})
