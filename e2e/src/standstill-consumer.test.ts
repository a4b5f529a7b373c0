// Whatever keeps the consumer from reading Kafka is seen within 15 s: not ready, one line, one count; and heals by itself.
import { historyKey } from '@iot/shared/contract'
import type { Cluster } from '@iot/stack/cluster'
import { kafkaTool } from '@iot/stack/kafka'
import { AclOperationTypes, AclPermissionTypes, AclResourceTypes, type Admin, ResourcePatternTypes } from 'kafkajs'
import { afterAll, expect, test } from 'vitest'
import { usePlatform } from './fixture.js'
import { eventually, type Platform } from './platform.js'

const SEEN_MS = 15_000
const LINE = 'Kafka is not giving records; retrying'

let platform: Platform
let cluster: Cluster
let admin: Admin
const fixture = usePlatform({
  servers: {
    kafkaProperties: [
      'authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer',
      'allow.everyone.if.no.acl.found=true',
      'super.users=User:nobody',
    ],
  },
  async start(started) {
    platform = started
    cluster = fixture.cluster
    await platform.up()
    admin = platform.kafka.admin()
    await admin.connect()
  },
})
afterAll(() => admin?.disconnect())

const standstills = async () =>
  Number(/^iot_standstills_total\{part="kafka"\} (\d+)$/m.exec(await platform.consumer.metrics())?.[1])
const lines = () => platform.consumer.log().split(LINE).length - 1
const notReady = async (): Promise<Record<string, string>> => {
  const ready = (await (await fetch(`${platform.consumer.url}/health/ready`)).json()) as {
    not_ready?: Record<string, string>
  }
  return ready.not_ready ?? {}
}

/** Plants a cause, sees it within 15 s, takes it away and sees that it heals, with everything stored. */
async function seen(cause: () => unknown, reason: RegExp, cure: () => unknown) {
  await platform.consumer.ready()
  const id = platform.id(`s${Math.random()}`)
  const before = { count: await standstills(), lines: lines() }
  const device = await platform.device()
  let seq = 0
  const publish = () => device.publish(`${platform.prefix}/${id}/data`, `{"seq":${seq++}}`, { qos: 1 })
  const ticker = setInterval(publish, 200)
  try {
    await cause()
    const words = await eventually(async () => (await notReady()).kafka ?? false, 'not ready', SEEN_MS)
    expect(words).toMatch(reason)
    expect(await standstills()).toBe(before.count + 1)
    await eventually(() => lines() === before.lines + 1, 'one line') // which comes by another way
    expect((await notReady()).redis).toBeUndefined()
  } finally {
    clearInterval(ticker)
    await cure()
  }
  await platform.consumer.ready(60_000)
  await eventually(async () => (await platform.redis.zcard(historyKey(id))) === seq, 'all is stored', 60_000)
}

test('frozen', async () => {
  await seen(
    () => cluster.kafka.signal('SIGSTOP'),
    /^Kafka: .*(timed out|no answer|not answered)/i,
    () => cluster.kafka.signal('SIGCONT'),
  )
}, 120_000)

test('frozen while there is nothing to read', async () => {
  await cluster.kafka.signal('SIGSTOP')
  try {
    await eventually(async () => (await notReady()).kafka !== undefined, 'not ready', SEEN_MS)
  } finally {
    await cluster.kafka.signal('SIGCONT')
  }
  await platform.consumer.ready(SEEN_MS)
}, 60_000)

const denyRead = (resourceType: AclResourceTypes, resourceName: string) => ({
  resourceType,
  resourceName,
  resourcePatternType: ResourcePatternTypes.LITERAL,
  principal: 'User:ANONYMOUS',
  host: '*',
  operation: AclOperationTypes.READ,
  permissionType: AclPermissionTypes.DENY,
})

test('an ACL refuses the topic', async () => {
  const acl = denyRead(AclResourceTypes.TOPIC, platform.topic)
  await seen(
    () => admin.createAcls({ acl: [acl] }),
    /topic.*not authorized|not authorized.*topic/i,
    () => admin.deleteAcls({ filters: [acl] }),
  )
}, 120_000)

test('an ACL refuses the group', async () => {
  const acl = denyRead(AclResourceTypes.GROUP, `group-${platform.run}`)
  await seen(
    () => admin.createAcls({ acl: [acl] }),
    /group.*not authorized|not authorized.*group/i,
    () => admin.deleteAcls({ filters: [acl] }),
  )
}, 120_000)

const quota = (...change: string[]) =>
  kafkaTool('kafka.admin.ConfigCommand', [
    ...['--bootstrap-server', `127.0.0.1:${cluster.kafka.port}`, '--alter'],
    ...['--entity-type', 'clients', '--entity-name', 'kafka-redis-consumer', ...change],
  ])

test('a quota throttles', async () => {
  // one large record is given whole, and paid for by half a minute without any
  const burst = async () => {
    await quota('--add-config', 'consumer_byte_rate=8000')
    const device = await platform.device()
    const topic = `${platform.prefix}/${platform.id('burst')}/data`
    await device.publishAsync(topic, JSON.stringify('x'.repeat(250_000)), { qos: 1 })
  }
  await seen(burst, /a quota throttles/, () => quota('--delete-config', 'consumer_byte_rate'))
}, 180_000)
