// What a device publishes comes out of Kafka and Redis exactly as the contract says.
import { randomBytes } from 'node:crypto'
import { expect, test } from 'vitest'
import { usePlatform } from './fixture.js'
import { eventually, type StoredRecord } from './platform.js'

const fixture = usePlatform()

const headerOf = ({ headers }: StoredRecord, name: string) => String(headers?.[name])
const hasKey =
  (...ids: string[]) =>
  ({ key }: StoredRecord) =>
    ids.includes(String(key))

test('a reading becomes the exact record, hash, history and update', async () => {
  const { platform } = fixture
  const { redis, prefix, topic } = platform
  const id = platform.id('exact')
  const payload = '{"big":12345678901234567890,"price":1.10}'
  const updates: string[] = []
  const listener = redis.duplicate()
  await listener.subscribe(`device-updates:${id}`)
  listener.on('message', (_channel, message) => updates.push(message))
  const before = Math.floor(Date.now() / 1000)
  await (await platform.device()).publishAsync(`${prefix}/${id}/data`, payload, { qos: 1 })
  await eventually(() => updates.length === 1, 'the update')
  listener.disconnect()

  const timestamp = await redis.hget(`device:last_state:${id}`, 'timestamp')
  expect(Number(timestamp)).toBeGreaterThanOrEqual(before)
  expect(Number(timestamp)).toBeLessThanOrEqual(Math.floor(Date.now() / 1000))
  const message = `{"device_id":"${id}","payload":${payload},"timestamp":${timestamp}}`
  expect(updates).toEqual([message])
  expect(await redis.hgetall(`device:last_state:${id}`)).toEqual({ payload, timestamp })
  expect(await redis.zrange(`device:history:${id}`, '0', '-1', 'WITHSCORES')).toEqual([message, timestamp])
  const records = await platform.records(1, topic, hasKey(id))
  expect(records.map(({ value }) => String(value))).toEqual([message])
})

test('text, empty, binary and oversized messages each end where the contract says', async () => {
  const { platform } = fixture
  const { redis, prefix, topic } = platform
  const device = await platform.device()
  const id = platform.id('odd')
  const binary = Buffer.from([0xff, 0x00, 0x80])
  const large = randomBytes(200_000).toString('hex')
  const impossible = 'x'.repeat(257)
  const send = (payload: string | Buffer, to = id) => device.publishAsync(`${prefix}/${to}/data`, payload, { qos: 1 })
  await send('')
  await send(binary)
  await send(large)
  await send('{}', impossible)
  await send('hello "world"')
  await eventually(
    async () => (await redis.hget(`device:last_state:${id}`, 'payload')) === '"hello \\"world\\""',
    'the text',
  )

  const sources = [id, impossible].map((from) => `${prefix}/${from}/data`)
  const letters = await platform.records(4, `${topic}-dlq`, (letter) => sources.includes(headerOf(letter, 'source')))
  const seen = letters.map((letter) => [
    headerOf(letter, 'reason'),
    letter.key?.toString(),
    letter.value?.toString('latin1'),
  ])
  expect(seen).toEqual([
    ['empty_payload', id, ''],
    ['not_utf8', id, binary.toString('latin1')],
    ['too_large', id, large],
    ['invalid_device_id', undefined, '{}'],
  ])
  for (const letter of letters) expect(headerOf(letter, 'service')).toBe('mqtt-kafka-bridge')
  expect(letters.map((letter) => headerOf(letter, 'source'))).toEqual([...Array(3).fill(sources[0]), sources[1]])
})

test('last_state follows the order in Kafka, also when the clock that made the timestamps went back', async () => {
  const { platform } = fixture
  const { kafka, topic, redis } = platform
  const id = platform.id('clock')
  const producer = kafka.producer()
  await producer.connect()
  const send = async (payload: number, timestamp: number) => {
    const value = `{"device_id":"${id}","payload":${payload},"timestamp":${timestamp}}`
    await producer.send({ topic, messages: [{ key: id, value, partition: 0 }] })
    await eventually(async () => (await redis.hget(`device:last_state:${id}`, 'payload')) === String(payload), value)
  }
  const now = Math.floor(Date.now() / 1000)
  await redis.set(`{device:last_state:${id}}:offset`, '9:999:9999999999') // of a form that is not today's
  await send(1, now)
  await send(2, now - 3600)
  await send(3, now - 3600)
  await send(4, now + 3600)
  await producer.disconnect()
  await eventually(async () => (await redis.zcard(`device:history:${id}`)) === 4, 'all four in the history')
})

test("another producer's garbage is dead-lettered and passed over", async () => {
  const { platform } = fixture
  const { kafka, topic, redis } = platform
  const id = platform.id('after')
  const good = `{"device_id":"${id}","payload":1,"timestamp":1700000000}`
  const producer = kafka.producer()
  await producer.connect()
  await producer.send({
    topic,
    messages: [
      { key: id, value: null, partition: 0 },
      { key: id, value: 'garbage', partition: 0 },
      { key: id, value: good, partition: 0 },
    ],
  })
  await producer.disconnect()
  await eventually(async () => (await redis.hget(`device:last_state:${id}`, 'payload')) === '1', 'the good one')
  const isInvalid = (letter: StoredRecord) => headerOf(letter, 'reason') === 'invalid_message'
  const letters = await platform.records(2, `${topic}-dlq`, isInvalid)
  expect(letters.map(({ value }) => value?.toString() ?? null)).toEqual([null, 'garbage'])
  expect(letters[1] && headerOf(letters[1], 'source')).toMatch(new RegExp(`^${topic}/0@\\d+$`))
})

test('history older than the retention is removed', async () => {
  const { platform } = fixture
  const { redis, prefix } = platform
  const id = platform.id('old')
  const now = Math.floor(Date.now() / 1000)
  await redis.zadd(`device:history:${id}`, now - 18_100, 'too old', now - 17_000, 'young enough')
  await (await platform.device()).publishAsync(`${prefix}/${id}/data`, '1', { qos: 1 })
  await eventually(async () => (await redis.hget(`device:last_state:${id}`, 'payload')) === '1', 'the reading')
  await eventually(async () => !(await redis.zrange(`device:history:${id}`, '0', '-1')).includes('too old'), 'the trim')
  expect(await redis.zrange(`device:history:${id}`, '0', '0')).toEqual(['young enough'])
  expect(await redis.ttl(`device:history:${id}`)).toBeGreaterThan(0)
})

test('retained messages are ignored', async () => {
  const { platform } = fixture
  const { redis, prefix } = platform
  const device = await platform.device()
  const id = platform.id('retained')
  await device.publishAsync(`${prefix}/${id}/data`, '"before"', { qos: 1, retain: true })
  await eventually(async () => (await redis.hget(`device:last_state:${id}`, 'payload')) === '"before"', 'the live copy')
  await redis.del(`device:last_state:${id}`)
  await platform.bridge.stop()
  await platform.bridge.start({ MQTT_CLIENT_ID: platform.id('another-session') })
  await platform.bridge.ready()
  await device.publishAsync(`${prefix}/${platform.id('later')}/data`, '1', { qos: 1 })
  await eventually(() => redis.exists(`device:last_state:${platform.id('later')}`), 'a later reading')
  expect(await redis.exists(`device:last_state:${id}`)).toBe(0)
  const metrics = await platform.bridge.metrics()
  expect(metrics).toMatch(/iot_mqtt_ignored_messages_total\{reason="retained"\} 1/)
  // the broker hands the clearing on without the flag (MQTT 5, 3.3.1.3): nothing tells it from an empty reading
  await device.publishAsync(`${prefix}/${id}/data`, '', { qos: 1, retain: true })
  const [letter] = await platform.records(1, `${platform.topic}-dlq`, hasKey(id))
  expect(String(letter?.headers?.reason)).toBe('empty_payload')
})

test('all messages of a device are in one partition, in order: 10,000 of 100 devices', async () => {
  const { platform } = fixture
  const { prefix, redis, topic } = platform
  const device = await platform.device()
  const ids = Array.from({ length: 100 }, (_, index) => platform.id(`order-${index}`))
  await Promise.all(
    Array.from({ length: 10_000 }, (_, index) =>
      device.publishAsync(`${prefix}/${ids[index % 100]}/data`, `{"seq":${Math.floor(index / 100)}}`, { qos: 1 }),
    ),
  )
  const records = await platform.records(10_000, topic, hasKey(...ids))
  for (const id of ids) {
    const own = records.filter(({ key }) => key?.toString() === id)
    expect(own.map(({ value }) => JSON.parse(String(value)).payload.seq)).toEqual(
      Array.from({ length: 100 }, (_, seq) => seq),
    )
    expect(new Set(own.map(({ partition }) => partition)).size).toBe(1)
  }
  await eventually(async () => (await platform.lag()) === 0, 'lag 0')
  for (const id of ids) expect(await redis.hget(`device:last_state:${id}`, 'payload')).toBe('{"seq":99}')
})
