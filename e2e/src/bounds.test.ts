// Whatever strangers on the broker and callers of the API let grow has a bound: the bridge stays below the 512 MB that
// the compose file gives it, answers meanwhile, and stops cleanly with all of it open.
import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import type { MqttClient } from 'mqtt'
import { afterAll, beforeAll, beforeEach, expect, inject, test } from 'vitest'
import { createPlatform, eventually, type Platform } from './platform.js'

const LIMIT_MB = 512
const TEST_MS = 600_000 // a great deal of work, on a machine that may be busy
const CALLS = 2000
const AT_ONCE = 100
const HOME = 'content-type: application/json\r\nHost: localhost\r\n'

let platform: Platform
let stranger: MqttClient
beforeAll(async () => {
  platform = await createPlatform({ kafka: inject('kafkaPort'), redis: inject('redisPort'), mqtt: inject('mqttPort') })
  stranger = await platform.device()
})
beforeEach(async () => {
  await platform.bridge.stop()
  await platform.bridge.start({ DEVICE_OFFLINE_TIMEOUT: '3600', API_RATE_LIMIT: '1000000' })
  await platform.bridge.ready()
  await stranger.publishAsync(`${platform.prefix}/dev/hello`, '', { qos: 1 })
  const online = async () =>
    ((await (await fetch(`${platform.bridge.url}/devices/dev`)).json()) as { online: boolean }).online
  await eventually(online, 'online')
})
afterAll(() => platform?.down())

/** The most memory that the bridge has had, in MB. */
const peakMb = () =>
  Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${platform.bridge.pid()}/status`, 'utf8'))?.[1]) / 1024
const command = (body: string, query = '', headers = {}) =>
  fetch(`${platform.bridge.url}/devices/dev/command${query}`, {
    method: 'POST',
    body,
    headers: { 'content-type': 'application/json', ...headers },
  })
const isAlive = async () => (await fetch(`${platform.bridge.url}/health/live`)).ok
const port = () => Number(new URL(platform.bridge.url).port)
const open = async (text: string): Promise<Socket> => {
  const socket = connect(port(), '127.0.0.1')
  socket.on('error', () => {})
  await new Promise((resolve) => socket.once('connect', resolve))
  socket.write(text)
  return socket
}

test.runIf(process.platform === 'linux')(
  'replies that nobody could read',
  async () => {
    const { prefix, bridge } = platform
    const commands = `${prefix}/dev/commands`
    const filler = JSON.stringify(Array.from({ length: 80_000 }, () => [])) // 240 KB that take 20 times as much parsed
    const reply = (_topic: string, payload: Buffer) => {
      const { command_id } = JSON.parse(String(payload))
      const text = (result: string) => `{"command_id":"${command_id}","status":"succeeded","result":${result}}`
      stranger.publish(`${commands}/ack`, text(filler), { qos: 1 })
      stranger.publish(`${commands}/ack`, text(`{"n":1.10,"deep":${'['.repeat(8000)}${']'.repeat(8000)}}`), { qos: 1 })
    }
    stranger.on('message', reply)
    await stranger.subscribeAsync(commands, { qos: 1 })
    for (let round = 0; round < 200; round++) {
      const answer = await command('{"command":"x"}', '?wait=60s')
      expect(answer.status).toBe(200)
      expect(await answer.text()).toContain('"result":{"n":1.10,"deep":[[')
    }
    stranger.off('message', reply)
    await stranger.unsubscribeAsync(commands)
    expect(await bridge.metrics()).toContain('iot_command_replies_total{outcome="too_large"} 200')
    expect(peakMb()).toBeLessThan(LIMIT_MB)
  },
  TEST_MS,
)

test.runIf(process.platform === 'linux')(
  'bodies behind an Idempotency-Key',
  async () => {
    for (let round = 0; round < 50; round++) {
      const batch = Array.from({ length: 20 }, (_, index) => {
        const body = `{"command":"x","pad":"${String(round * 20 + index).padEnd(250_000, 'a')}"}`
        return command(body, '', { 'idempotency-key': `key-${round}-${index}` })
      })
      expect((await Promise.all(batch)).map(({ status }) => status)).toEqual(Array(20).fill(202))
    }
    expect(peakMb()).toBeLessThan(LIMIT_MB)
  },
  TEST_MS,
)

test.runIf(process.platform === 'linux')(
  'calls that wait, and half a request: refused in time, and no hindrance to a stop',
  async () => {
    const { bridge } = platform
    // without a subscriber the broker would say so, and nobody would wait
    await stranger.subscribeAsync(`${platform.prefix}/dev/commands`, { qos: 0 })
    const body = '{"command":"x"}'
    const call = `POST /devices/dev/command?wait=60s HTTP/1.1\r\n${HOME}Content-Length: ${body.length}\r\n\r\n${body}`
    const statuses: Record<string, number> = {}
    const ends: Promise<unknown>[] = []
    const wait = async () => {
      const socket = await open(call)
      socket.on('data', (data) => {
        for (const [, status = ''] of String(data).matchAll(/HTTP\/1\.1 (\d+)/g))
          statuses[status] = (statuses[status] ?? 0) + 1
      })
      ends.push(new Promise((resolve) => socket.once('close', resolve)))
    }
    for (let made = 0; made < CALLS; made += AT_ONCE) await Promise.all(Array.from({ length: AT_ONCE }, wait))
    await eventually(
      () => statuses['503'] === 1000,
      () => `those above the limit: ${JSON.stringify(statuses)}`,
    )
    expect(await isAlive()).toBe(true)
    await open(`GET /devices HTTP/1.1\r\n${HOME}`)
    await open(`POST /devices/dev/command HTTP/1.1\r\n${HOME}Content-Length: 100\r\n\r\n{"comm`)
    await open('')
    expect(peakMb()).toBeLessThan(LIMIT_MB)
    expect(await bridge.stop()).toBe(0)
    await Promise.all(ends)
    expect(statuses).toEqual({ 202: 1000, 503: 1000 }) // each got its answer
    expect(bridge.log()).not.toContain('did not stop cleanly')
    await stranger.unsubscribeAsync(`${platform.prefix}/dev/commands`)
  },
  TEST_MS,
)

test.runIf(process.platform === 'linux')(
  '200,000 ids of 256 bytes, read by many at once and by some who read nothing',
  async () => {
    const { prefix, bridge } = platform
    const longId = (index: number) => String(index).padStart(6, '0').padEnd(256, 'x')
    const count = async () => Number(/^iot_online_devices (\d+)$/m.exec(await bridge.metrics())?.[1])
    for (let index = 0; index < 199_999; index++) {
      stranger.publish(`${prefix}/${longId(index)}/hello`, '', { qos: 0 })
      if (index % 1000 === 999) await eventually(async () => (await count()) > index - 5000, 'it keeps up')
    }
    await eventually(async () => (await count()) === 200_000, 'all online', TEST_MS)
    const sleepers = await Promise.all(
      Array.from({ length: 20 }, (_, index) => {
        return open(`GET /devices${index % 2 ? '?details=true' : ''} HTTP/1.1\r\n${HOME}\r\n`)
      }),
    )
    for (const sleeper of sleepers) sleeper.pause()
    const read = async () => {
      const { body } = await fetch(`${bridge.url}/devices?details=true`)
      let bytes = 0
      for await (const chunk of body as unknown as AsyncIterable<Uint8Array>) bytes += chunk.length
      return bytes
    }
    const sizes = await Promise.all(Array.from({ length: 10 }, read))
    for (const bytes of sizes) expect(bytes).toBeGreaterThan(200_000 * 300)
    expect(peakMb()).toBeLessThan(LIMIT_MB)
    expect(await bridge.stop()).toBe(0)
  },
  TEST_MS,
)
