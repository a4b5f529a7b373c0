// What strangers send costs nobody else's data: bad messages by the thousand, payloads too large for Kafka, endless ids.
import { lastStateKey } from '@iot/shared/contract'
import type { MqttClient } from 'mqtt'
import { expect, test } from 'vitest'
import { usePlatform } from './fixture.js'
import { eventually, type StoredRecord } from './platform.js'

const WINDOW = 2000 // MAX_IN_FLIGHT
const IDS = Number(process.env.HOSTILE_IDS ?? 50_000)
const MAX_ONLINE = 20_000

let device: MqttClient
const fixture = usePlatform({
  async start(platform) {
    await platform.up({
      bridge: { MAX_PAYLOAD_BYTES: '4000000', MAX_ONLINE_DEVICES: String(MAX_ONLINE), DEVICE_OFFLINE_TIMEOUT: '3600' },
    })
    device = await platform.device()
  },
})

const send = (id: string, payload: string | Buffer) =>
  device.publishAsync(`${fixture.platform.prefix}/${id}/data`, payload, { qos: 1 })
const stateOf = (id: string) => fixture.platform.redis.hget(lastStateKey(id), 'payload')

test('ten windows of bad messages in a row, then a good one', async () => {
  const { platform } = fixture
  const bad = Buffer.from([0xff, 0xfe])
  await Promise.all(Array.from({ length: 10 * WINDOW }, (_, index) => send(platform.id('bad'), index % 2 ? bad : '')))
  await send(platform.id('good'), '"good"')
  await eventually(async () => (await stateOf(platform.id('good'))) === '"good"', 'the good one')
  expect(await platform.bridge.metrics()).toContain(`iot_dead_letters_total{reason="empty_payload"} ${5 * WINDOW}`)
  await platform.bridge.ready()
})

test('one message that Kafka does not take, among good ones: cut into a dead letter, the others in order', async () => {
  const { platform } = fixture
  const id = platform.id('large')
  const large = JSON.stringify('x'.repeat(2_000_000))
  const sent = Array.from({ length: 200 }, (_, seq) => send(id, seq === 100 ? large : `{"seq":${seq}}`))
  await Promise.all(sent)
  await eventually(async () => (await stateOf(id)) === '{"seq":199}', 'the last one')
  const records = await platform.records(199, platform.topic, ({ key }) => String(key) === id)
  const seqs = records.map(({ value }) => JSON.parse(String(value)).payload.seq)
  expect(seqs).toEqual(Array.from({ length: 200 }, (_, seq) => seq).filter((seq) => seq !== 100))
  const isTooLarge = ({ headers }: StoredRecord) => String(headers?.reason) === 'too_large'
  const [letter] = await platform.records(1, `${platform.topic}-dlq`, isTooLarge)
  expect(String(letter?.key)).toBe(id)
  expect(String(letter?.headers?.truncated_from)).toBe(String(large.length))
  expect(large.startsWith(String(letter?.value))).toBe(true)
})

test(`${IDS} distinct ids: presence stays within its limit, every reading is stored`, async () => {
  const { platform } = fixture
  const { prefix, redis, bridge, consumer } = platform
  const CHUNK = 5000
  for (let first = 0; first < IDS; first += CHUNK) {
    const ids = Array.from({ length: Math.min(CHUNK, IDS - first) }, (_, index) => platform.id(`many${first + index}`))
    await Promise.all(
      ids.flatMap((id) => [device.publishAsync(`${prefix}/${id}/hello`, '', { qos: 1 }), send(id, '1')]),
    )
  }
  await eventually(async () => (await stateOf(platform.id(`many${IDS - 1}`))) === '1', 'the last one', 300_000)
  await eventually(async () => (await platform.lag()) === 0, 'lag 0', 300_000)
  const online = (await (await fetch(`${bridge.url}/devices`)).json()) as string[]
  expect(online).toHaveLength(Math.min(IDS, MAX_ONLINE))
  for (let first = 0; first < IDS; first += CHUNK) {
    const pipeline = redis.pipeline()
    const count = Math.min(CHUNK, IDS - first)
    for (let index = 0; index < count; index++) pipeline.exists(lastStateKey(platform.id(`many${first + index}`)))
    const replies = (await pipeline.exec()) ?? []
    expect(replies.filter(([, exists]) => exists === 1)).toHaveLength(count)
  }
  for (const service of [bridge, consumer]) {
    expect(service.rssMb()).toBeLessThan(350)
    await service.ready()
  }
}, 900_000)
