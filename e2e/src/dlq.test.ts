// npm run dlq: dead letters are listed, and go back onto the topic once they are repaired.
import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { historyKey, lastStateKey } from '@iot/shared/contract'
import { root } from '@iot/stack/prepare'
import { afterAll, beforeAll, expect, inject, test, vi } from 'vitest'
import { createPlatform, createTopic, eventually, type Platform } from './platform.js'

vi.setConfig({ testTimeout: 180_000 }) // each look at the letters is a process of its own

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

const environment = () => ({
  PATH: process.env.PATH,
  KAFKA_BROKERS: `127.0.0.1:${inject('kafkaPort')}`,
  KAFKA_TOPIC: platform.topic,
  MQTT_TOPIC_PREFIX: platform.prefix,
})
const main = join(root, 'bridge', 'dist', 'dlq.js')
const dlq = (...args: string[]) => {
  const options = { env: environment(), encoding: 'utf8' } as const
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], options)
  return { status, stdout, stderr }
}
/** The same beside the test; `said` returns its output so far. */
const spawnDlq = (...args: (string | NodeJS.ProcessEnv)[]) => {
  const words = args.filter((arg) => typeof arg === 'string')
  const env = Object.assign(environment(), ...args.filter((arg) => typeof arg !== 'string'))
  const child = spawn(process.execPath, [main, ...words], { env })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data) => {
      output += data
    })
  }
  return { child, said: () => output }
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

test('a replay goes on behind what went back, past what cannot, and also after it was killed', async () => {
  const { kafka, topic } = platform
  const letters = `${topic}-dlq`
  const before = await platform.recordsFrom(new Map(), () => {}, letters).then(() => platform.ends(letters))
  const first = before.get(0) as number
  const producer = kafka.producer()
  await producer.connect()
  const put = (values: string[]) =>
    producer.send({
      topic: letters,
      messages: values.map((value) => ({ partition: 0, key: 'replayed', value, headers: { reason: 'test_reason' } })),
    })
  const back = async () => {
    const found: number[] = []
    await platform.recordsFrom(new Map(), ({ key, value }) => {
      if (String(key) === 'replayed') found.push(JSON.parse(String(value)).payload)
    })
    return found
  }
  await put(['0', '1', '', '3'])
  const replay = dlq('replay', '--reason', 'test_reason')
  expect(replay.status).toBe(1)
  expect(replay.stdout.match(/ -> /g)).toHaveLength(3)
  expect(replay.stderr).toContain(`dlq: 1 cannot go back as they are: ${first + 2}:`)
  expect(await back()).toEqual([0, 1, 3])

  const again = dlq('replay', '--reason', 'test_reason')
  expect(again).toMatchObject({ status: 0, stderr: '' })
  expect(again.stdout).toContain('--from 0')
  expect(await back()).toEqual([0, 1, 3])

  // killed while it sends: what it has said went back does not go again, but for the one that was under way
  await put(Array.from({ length: 200 }, (_, index) => String(10 + index)))
  const { child, said } = spawnDlq('replay', '--reason', 'test_reason')
  await eventually(() => said().includes(`${first + 14} ->`), said)
  const ended = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGKILL')
  await ended
  expect(dlq('replay', '--reason', 'test_reason').status).toBe(0)
  const wanted = [0, 1, 3, ...Array.from({ length: 200 }, (_, index) => 10 + index)]
  const found = await back()
  expect([...new Set(found)]).toEqual(wanted)
  expect(found.length).toBeLessThanOrEqual(wanted.length + 1)

  expect(dlq('replay', '--reason', 'test_reason', '--from', String(first + 3)).stdout).toContain(`${first + 3} ->`)
  await producer.disconnect()
})

test.runIf(process.platform === 'linux')(
  'letters of any form are listed, and memory does not grow with them',
  async () => {
    const { kafka } = platform
    const topic = `${platform.topic}-many`
    const admin = kafka.admin()
    await admin.connect()
    await createTopic(admin, { topic: `${topic}-dlq`, numPartitions: 1 })
    await admin.disconnect()
    const producer = kafka.producer()
    await producer.connect()
    const headers = { reason: 'too_large', source: `devices/\u001b[31mred/data`, timestamp: '1700000000' }
    for (let index = 0; index < 400; index++) {
      await producer.send({
        topic: `${topic}-dlq`,
        messages: [{ key: null, value: Buffer.alloc(790_000, 'x'), headers }],
      })
    }
    const odd = [{ timestamp: 'yesterday' }, { timestamp: Buffer.from([0xff, 0xfe]) }, {}, { reason: ['a', 'b'] }]
    await producer.send({ topic: `${topic}-dlq`, messages: odd.map((one) => ({ value: null, headers: one })) })
    await producer.disconnect()
    const transaction = kafka.producer({ transactionalId: `${topic}-t`, maxInFlightRequests: 1, idempotent: true })
    await transaction.connect()
    const open = await transaction.transaction()
    await open.send({ topic: `${topic}-dlq`, messages: [{ value: 'last', headers: {} }] })
    await open.commit() // its marker is the last offset, and no message
    await transaction.disconnect()

    const { child, said } = spawnDlq('list', { KAFKA_TOPIC: topic })
    let peakMb = 0
    const timer = setInterval(() => {
      try {
        const status = readFileSync(`/proc/${child.pid}/status`, 'utf8')
        peakMb = Math.max(peakMb, Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024)
      } catch {} // it has ended
    }, 20)
    expect(await new Promise((resolve) => child.once('close', resolve))).toBe(0)
    clearInterval(timer)
    expect(said()).toContain('405 dead letters, the last 100 shown')
    expect(said()).not.toContain('\u001b[31mred')
    expect(peakMb).toBeGreaterThan(0)
    expect(peakMb).toBeLessThan(250) // of 316 MB of letters
  },
)
