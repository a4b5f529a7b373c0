// npm run dlq: dead letters are listed, and go back onto the topic once they are repaired.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { historyKey, lastStateKey } from '@iot/shared/contract'
import { root } from '@iot/stack/prepare'
import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import { createPlatform, eventually, type Platform } from './platform.js'

let platform: Platform
let dir: string
beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'iot-dlq-'))
  platform = await createPlatform({ kafka: inject('kafkaPort'), redis: inject('redisPort'), mqtt: inject('mqttPort') })
  await platform.up()
})
afterAll(async () => {
  await platform?.down()
  rmSync(dir, { recursive: true, force: true })
})

const dlq = (...args: string[]) => {
  const env = {
    PATH: process.env.PATH,
    KAFKA_BROKERS: `127.0.0.1:${inject('kafkaPort')}`,
    KAFKA_TOPIC: platform.topic,
    MQTT_TOPIC_PREFIX: platform.prefix,
  }
  const main = join(root, 'bridge', 'dist', 'dlq.js')
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], { env, encoding: 'utf8' })
  return { status, stdout, stderr }
}

test('listed, refused as they are, replayed when repaired', async () => {
  const { prefix, redis, topic } = platform
  const id = platform.id('broken')
  const device = await platform.device()
  expect(dlq('list')).toMatchObject({ status: 0, stdout: '0 dead letters\n' })
  await redis.set(historyKey(id), 'of the wrong type')
  await device.publishAsync(`${prefix}/${id}/data`, Buffer.from('{"t":\xff}', 'latin1'), { qos: 1 })
  await device.publishAsync(`${prefix}/${id}/data`, '{"t":2}', { qos: 1 })
  await platform.records(2, `${topic}-dlq`)

  const listed = dlq('list').stdout
  expect(listed).toContain('2 dead letters')
  expect(listed).toMatch(new RegExp(`0.*not_utf8.*${prefix}/${id}/data.*${id}.*7.*\\{`))
  expect(listed).toMatch(new RegExp(`redis_rejected.*${topic}/\\d@\\d+`))
  expect(dlq('list', '--reason', 'not_utf8').stdout).toContain('1 dead letters')

  expect(dlq('replay', '--offset', '0')).toMatchObject({ status: 1, stdout: '' })
  expect(dlq('replay', '--offset', '0').stderr).toContain('not_utf8')
  expect(dlq('replay', '--offset', '99').stderr).toContain('no such dead letter')
  expect(dlq('replay').stderr).toContain('usage')

  await redis.del(historyKey(id))
  expect(dlq('replay', '--reason', 'redis_rejected').stdout).toMatch(new RegExp(`^1 -> ${topic}/\\d@\\d+\n$`))
  await eventually(async () => (await redis.hget(lastStateKey(id), 'payload')) === '{"t":2}', 'the rejected one')
  writeFileSync(join(dir, 'repaired'), '{"t":1}')
  expect(dlq('replay', '--offset', '0', '--file', join(dir, 'repaired')).status).toBe(0)
  await eventually(async () => (await redis.hget(lastStateKey(id), 'payload')) === '{"t":1}', 'the repaired one')
  expect(await redis.zcard(historyKey(id))).toBe(2)
})
