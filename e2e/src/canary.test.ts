// The canary tells nobody anything, and where a broker refuses it the bridge works without it.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { lastStateKey } from '@iot/shared/contract'
import mqtt from 'mqtt'
import { afterEach, expect, inject, test } from 'vitest'
import { startAedes, startOwnMosquitto } from './brokers.js'
import { createPlatform, eventually, type Platform } from './platform.js'

const closers: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})

async function platformOn(port: number): Promise<Platform> {
  const platform = await createPlatform({ kafka: inject('kafkaPort'), redis: inject('redisPort'), mqtt: port })
  closers.push(platform.down)
  return platform
}

/** Looks whether the bridge is ready, for `ms`; returns how often it was not. */
async function looksNotReady({ bridge }: Platform, ms: number): Promise<number> {
  let notReady = 0
  const until = Date.now() + ms
  await eventually(
    async () => {
      if (!(await fetch(`${bridge.url}/health/ready`)).ok) notReady++
      return Date.now() > until
    },
    'the end of looking',
    ms + 10_000,
  )
  return notReady
}

const connects = async ({ bridge }: Platform) =>
  (await bridge.metrics()).match(/^iot_mqtt_connects_total\{.*\} \d+$/gm)?.map((line) => Number(line.split(' ')[1]))

async function worksWithout(platform: Platform) {
  const { prefix, redis, bridge } = platform
  const device = await platform.device()
  await device.publishAsync(`${prefix}/${platform.id('a')}/hello`, '')
  await device.publishAsync(`${prefix}/${platform.id('a')}/data`, '1', { qos: 1 })
  await eventually(async () => (await redis.hget(lastStateKey(platform.id('a')), 'payload')) === '1', 'the reading')
  await eventually(async () => (await fetch(`${bridge.url}/devices/${platform.id('a')}`)).ok, 'the hello')
}

test('a client that reads everything sees nothing from which a client id follows', async () => {
  const mosquitto = await startOwnMosquitto()
  closers.push(mosquitto.stop)
  const spy = await mqtt.connectAsync(`mqtt://127.0.0.1:${mosquitto.port}`)
  closers.push(() => spy.endAsync(true))
  const seen: string[] = []
  spy.on('message', (topic, payload) => seen.push(`${topic} ${payload}`))
  await spy.subscribeAsync(['#', '$SYS/#'], { qos: 1 })
  const platform = await platformOn(mosquitto.port)
  const { bridge, consumer } = platform
  await Promise.all([bridge.start({ MQTT_CLIENT_ID: '', MQTT_STALL_TIMEOUT_MS: '3000' }), consumer.start()])
  await Promise.all([bridge.ready(), consumer.ready()])
  const canaries = () => new Set(seen.filter((line) => line.startsWith('canary/')))
  await eventually(() => canaries().size === 2, 'both canaries')
  await worksWithout(platform)
  const clientId = /"clientId":"([^"]+)"/.exec(bridge.log())?.[1] ?? ''
  expect(clientId).toMatch(/^iot-bridge-[0-9a-f]{16}$/)
  const secret = clientId.replace('iot-bridge-', '')
  const all = seen.join('\n')
  for (let at = 0; at + 6 <= secret.length; at++) expect(all).not.toContain(secret.slice(at, at + 6))
  expect(all).not.toContain('iot-bridge')

  // the same after a restart: the session does not collect subscriptions
  const before = [...canaries()].sort()
  expect(await bridge.stop()).toBe(0)
  seen.length = 0
  await bridge.start({ MQTT_CLIENT_ID: '', MQTT_STALL_TIMEOUT_MS: '3000' })
  await eventually(() => canaries().size === 2, 'both canaries again')
  expect([...canaries()].sort()).toEqual(before)
}, 90_000)

test('an account that may read devices only: ready at every look, the canary off with one line for each connection', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'iot-acl-'))
  closers.push(() => rmSync(dir, { recursive: true, force: true }))
  const rules = join(dir, 'acl')
  writeFileSync(rules, 'topic read none\n') // until the prefix is known
  const mosquitto = await startOwnMosquitto([`acl_file ${rules}`])
  closers.push(mosquitto.stop)
  const platform = await platformOn(mosquitto.port)
  const { bridge, consumer, prefix } = platform
  writeFileSync(rules, `topic write ${prefix}/#\nuser bridge\ntopic read ${prefix}/#\n`)
  await mosquitto.signal('SIGHUP')
  await Promise.all([
    bridge.start({ MQTT_USERNAME: 'bridge', MQTT_PASSWORD: 'x', MQTT_STALL_TIMEOUT_MS: '3000' }),
    consumer.start(),
  ])
  await Promise.all([bridge.ready(), consumer.ready()])
  expect(await looksNotReady(platform, 8000)).toBe(0)
  expect(await connects(platform)).toEqual([1, 1])
  expect(bridge.log().match(/canary switched off/g)).toHaveLength(2)
  await worksWithout(platform)
})

test('a broker that ends the connection at the canary: it reconnects once, without it', async () => {
  const broker = await startAedes({
    authorizePublish: (_client, packet, done) =>
      packet.topic.startsWith('canary/') ? done(new Error('not allowed')) : done(null),
  })
  closers.push(broker.close)
  const platform = await platformOn(broker.port)
  const { bridge, consumer } = platform
  await Promise.all([bridge.start({ MQTT_STALL_TIMEOUT_MS: '3000' }), consumer.start()])
  await eventually(() => bridge.log().match(/canary switched off/g)?.length === 2, 'both are off')
  await Promise.all([bridge.ready(), consumer.ready()])
  expect(await looksNotReady(platform, 8000)).toBe(0)
  expect(await connects(platform)).toEqual([2, 2])
  await worksWithout(platform)
})
