// A wrong variable: one line that names it, exit 1, nothing started.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { root } from '@iot/stack/prepare'
import { expect, test } from 'vitest'

test.each([
  ['bridge', { DEVICE_OFFLINE_TIMEOUT: 'soon', MQTT_URL: 'broker:1883' }, ['MQTT_URL', 'DEVICE_OFFLINE_TIMEOUT']],
  ['consumer', { BATCH_SIZE: '0', REDIS_URL: 'localhost' }, ['REDIS_URL', 'BATCH_SIZE']],
  [
    'consumer',
    { REDIS_PASSWORD_FILE: '/absent', REDIS_CA_FILE: '/absent', REDIS_URL: 'rediss://127.0.0.1' },
    ['REDIS_PASSWORD_FILE', 'REDIS_CA_FILE'],
  ],
])('%s', (service, env, named) => {
  const main = join(root, service, 'dist', 'main.js')
  const { status, stdout, stderr } = spawnSync(process.execPath, [main], { env: { ...env }, encoding: 'utf8' })
  expect(status).toBe(1)
  expect(stdout).toBe('')
  const lines = stderr.trim().split('\n')
  expect(lines.map((line) => line.split(': ')[1])).toEqual(named)
})
