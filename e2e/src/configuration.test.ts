// A wrong variable: one line that names it, exit 1, nothing started. A dangerous one: one warning, without the secret.
import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { root } from '@iot/stack/prepare'
import { expect, test } from 'vitest'
import { eventually } from './platform.js'

const main = (service: string) => join(root, service, 'dist', 'main.js')

test.each<[string, NodeJS.ProcessEnv, string[]]>([
  ['bridge', { DEVICE_OFFLINE_TIMEOUT: 'soon', MQTT_URL: 'broker:1883' }, ['MQTT_URL', 'DEVICE_OFFLINE_TIMEOUT']],
  ['consumer', { BATCH_SIZE: '0', REDIS_URL: 'localhost' }, ['REDIS_URL', 'BATCH_SIZE']],
  [
    'consumer',
    { REDIS_PASSWORD_FILE: '/absent', REDIS_CA_FILE: '/absent', REDIS_URL: 'rediss://127.0.0.1' },
    ['REDIS_PASSWORD_FILE', 'REDIS_CA_FILE'],
  ],
  [
    'bridge',
    { API_KEYS: '', MQTT_HOST: 'x', KAFKA_BROKER: 'x', REDIS_HOST: 'x', DEVICE_OFFLINE_TIMOUT: '1' },
    ['API_KEYS', 'MQTT_HOST', 'KAFKA_BROKER', 'REDIS_HOST', 'DEVICE_OFFLINE_TIMOUT'],
  ],
  ['reader', { BRIDGE_URLS: 'bridge:8000', READER_HOTS: 'x' }, ['READER_HOTS', 'BRIDGE_URLS']],
  ['consumer', { API_KEYS: 'x', REDIS_HOST: 'x', KAFKA_PORT: '1', MQTT_PORT: '1' }, ['API_KEYS', 'REDIS_HOST']],
])('%s with %o', (service, env, named) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main(service)], { env, encoding: 'utf8' })
  expect(status).toBe(1)
  expect(stdout).toBe('')
  const lines = stderr.trim().split('\n')
  expect(lines.map((line) => line.split(': ')[1])).toEqual(named)
})

const SECRET = 'a-secret-of-ours'
const sasl = { KAFKA_SASL_MECHANISM: 'plain', KAFKA_USERNAME: 'u', KAFKA_PASSWORD: SECRET }
/** What Kubernetes, `npm start` and the other service bring along. */
const others = {
  API_PORT: 'tcp://10.0.0.1:80',
  REDIS_PORT: 'tcp://10.0.0.1:6379',
  KAFKA_SERVICE_HOST: '10.0.0.1',
  KAFKA_PORT_9092_TCP_ADDR: '10.0.0.1',
  MQTT_PORT: '1883',
  REDIS_SERVER: 'valkey-server',
  KAFKA_BROKER_COUNT: '3',
  SIMULATED_DEVICES: '0',
}

test.each<[string, NodeJS.ProcessEnv, string[]]>([
  [
    'bridge',
    { ...sasl, MQTT_URL: 'mqtt://192.0.2.1', MQTT_PASSWORD: SECRET, BATCH_SIZE: '1' },
    ['KAFKA_PASSWORD', 'MQTT_PASSWORD'],
  ],
  [
    'consumer',
    { ...sasl, REDIS_URL: 'redis://192.0.2.1', REDIS_PASSWORD: SECRET, HEALTH_PORT: '0', API_KEY: 'x'.repeat(16) },
    ['KAFKA_PASSWORD', 'REDIS_PASSWORD'],
  ],
])('%s warns of what crosses the network in the clear', async (service, env, named) => {
  const dir = mkdtempSync(join(tmpdir(), 'iot-clear-'))
  const child = spawn(process.execPath, [main(service)], {
    env: { ...others, KAFKA_BROKERS: '127.0.0.1:1', DATA_DIR: dir, ...env },
    cwd: dir,
  })
  const closed = new Promise((resolve) => child.once('close', resolve))
  let said = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data) => {
      said += data
    })
  }
  const warnings = () => said.split('\n').filter((line) => line.includes('in the clear'))
  await eventually(
    () => warnings().length >= named.length,
    () => said,
  )
  child.kill('SIGKILL')
  await closed
  rmSync(dir, { recursive: true })
  expect(warnings().map((line) => (JSON.parse(line) as { msg: string }).msg.split(' ')[0])).toEqual(named)
  expect(said).not.toContain(SECRET)
})
