// Whatever keeps Kafka from storing records is seen within 15 s: not ready, one line, one count; and heals by itself.
import type { Cluster } from '@iot/stack/cluster'
import { kafkaTool } from '@iot/stack/kafka'
import { AclOperationTypes, AclPermissionTypes, AclResourceTypes, type Admin, ResourcePatternTypes } from 'kafkajs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { listen } from './live-client.js'
import { createPlatform, eventually, type Platform, portsOf } from './platform.js'
import { startServers } from './servers.js'

const SEEN_MS = 15_000
const LINE = 'Kafka is not accepting records; retrying'

let cluster: Cluster
let platform: Platform
let admin: Admin
beforeAll(async () => {
  cluster = await startServers({
    kafkaProperties: [
      'authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer',
      'allow.everyone.if.no.acl.found=true',
      'super.users=User:nobody',
    ],
  })
  platform = await createPlatform(portsOf(cluster))
  await platform.up({ reader: {} })
  admin = platform.kafka.admin()
  await admin.connect()
})
afterAll(async () => {
  await admin?.disconnect()
  await platform?.down()
  await cluster?.stop()
})

const standstills = async () =>
  Number(/^iot_standstills_total\{part="kafka"\} (\d+)$/m.exec(await platform.bridge.metrics())?.[1])
const lines = () => platform.bridge.log().split(LINE).length - 1
const problem = async (): Promise<string | undefined> =>
  ((await (await fetch(`${platform.bridge.url}/health/ready`)).json()) as { not_ready?: { kafka?: string } }).not_ready
    ?.kafka

/** Plants a cause, sees it, takes it away and sees that it heals; readings go on all the time. */
async function seen(cause: () => unknown, reason: RegExp, cure: () => unknown) {
  const id = platform.id(`s${Math.random()}`)
  const before = { count: await standstills(), lines: lines() }
  const device = await platform.device()
  let seq = 0
  const ticker = setInterval(() => device.publish(`${platform.prefix}/${id}/data`, `{"seq":${seq++}}`, { qos: 1 }), 200)
  try {
    await cause()
    const words = await eventually(async () => (await problem()) ?? false, 'not ready', SEEN_MS)
    expect(words).toMatch(reason)
    expect(await standstills()).toBe(before.count + 1)
    await eventually(() => lines() === before.lines + 1, 'one line') // which comes by another way
  } finally {
    clearInterval(ticker)
    await cure()
  }
  await platform.bridge.ready(60_000)
  const last = `{"seq":${seq - 1}}`
  const state = () => platform.redis.hget(`device:last_state:${id}`, 'payload')
  await eventually(async () => (await state()) === last, 'the last reading is stored', 60_000)
  expect(await platform.redis.zcard(`device:history:${id}`)).toBe(seq)
}

test(
  'frozen',
  () =>
    seen(
      () => cluster.kafka.signal('SIGSTOP'),
      /^Kafka: .*(timed out|no answer|timeout)/i,
      () => cluster.kafka.signal('SIGCONT'),
    ),
  120_000,
)

test('frozen while nothing is published: seen all the same; the live feed says so, and goes on where it was', async () => {
  const { bridge, reader } = platform
  const id = platform.id('frozen')
  const feed = await listen(`${reader.url}/live?device=${id}`)
  const told = () => feed.events.filter(({ event }) => event !== 'open').map(({ text }) => text)
  const device = await platform.device()
  await cluster.kafka.signal('SIGSTOP')
  try {
    await eventually(async () => (await problem()) !== undefined, 'not ready', SEEN_MS)
    await eventually(() => told().length === 1, 'the feed says so', SEEN_MS)
    await expect(listen(`${reader.url}/live`)).rejects.toThrow(/^503.*KAFKA_UNAVAILABLE/)
    expect(await (await fetch(`${reader.url}/health/ready`)).text()).toContain('"kafka"')
    device.publish(`${platform.prefix}/${id}/data`, '1', { qos: 1 })
  } finally {
    await cluster.kafka.signal('SIGCONT')
  }
  await bridge.ready(SEEN_MS)
  await device.publishAsync(`${platform.prefix}/${id}/data`, '2', { qos: 1 })
  await eventually(() => feed.updates().length === 2 && told().length === 4, 'it goes on', SEEN_MS)
  expect(feed.updates().map(({ data }) => (data as { payload: number }).payload)).toEqual([1, 2])
  expect(told().filter((text) => text.includes('kafka'))).toEqual(['{"kafka":"away"}', '{"kafka":"back"}'])
  feed.cut()
}, 60_000)

test('an ACL refuses', () => {
  const acl = {
    resourceType: AclResourceTypes.TOPIC,
    resourceName: platform.topic,
    resourcePatternType: ResourcePatternTypes.LITERAL,
    principal: 'User:ANONYMOUS',
    host: '*',
    operation: AclOperationTypes.WRITE,
    permissionType: AclPermissionTypes.DENY,
  }
  return seen(
    () => admin.createAcls({ acl: [acl] }),
    /not authorized/i,
    () => admin.deleteAcls({ filters: [acl] }),
  )
}, 120_000)

const quota = (...change: string[]) =>
  kafkaTool('kafka.admin.ConfigCommand', [
    ...['--bootstrap-server', `127.0.0.1:${cluster.kafka.port}`, '--alter'],
    ...['--entity-type', 'clients', '--entity-name', 'mqtt-kafka-bridge', ...change],
  ])
test('a quota throttles', async () => {
  // one large record is stored whole, and paid for by half a minute without any
  const burst = async () => {
    await quota('--add-config', 'producer_byte_rate=1000')
    const device = await platform.device()
    const topic = `${platform.prefix}/${platform.id('burst')}/data`
    await device.publishAsync(topic, JSON.stringify('x'.repeat(40_000)), { qos: 1 })
  }
  await seen(burst, /a quota throttles/, () => quota('--delete-config', 'producer_byte_rate'))
}, 180_000)
