// A failover behind one address, as managed services and Kubernetes do it: the connection to the former master stays
// open, and only a new one reaches the server that takes writes.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { historyKey, lastStateKey } from '@iot/shared/contract'
import { assemble, type Cluster } from '@iot/stack/cluster'
import { startKafka } from '@iot/stack/kafka'
import { claimPort } from '@iot/stack/ports'
import { type Server, startMosquitto, startRedis } from '@iot/stack/servers'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { runCell } from './chaos/cell.js'
import { createPlatform, eventually, type Platform } from './platform.js'
import { createProxy, type TcpProxy } from './proxy.js'

const HEALED_MS = 5000
const LOAD = { devices: 10, ratePerSecond: 200, beforeMs: 1000, afterMs: 1000 }
const clean = { missing: 0, out_of_order: 0, foreign: 0, missing_in_history: 0, wrong_last_state: 0 }
/** Whether the Redis in use has WAITAOF. */
const isNew = () => {
  const said = execFileSync(process.env.REDIS_SERVER || 'redis-server', ['--version'], { encoding: 'utf8' })
  return (/v=(\S+)/.exec(said)?.[1] ?? '').localeCompare('7.2', 'en', { numeric: true }) >= 0
}
const SLOW_LOADING = ['--key-load-delay', '1000'] // microseconds a key

const dir = mkdtempSync(join(tmpdir(), 'iot-failover-'))
let cluster: Cluster
let second: Server
let proxy: TcpProxy
let platform: Platform
const clients: Redis[] = []
const client = (port: number) => {
  const made = new Redis(port, '127.0.0.1', { enableReadyCheck: false })
  made.on('error', () => {})
  clients.push(made)
  return made
}

beforeAll(async () => {
  // local processes always: the two Redis must reach each other
  cluster = await assemble(
    {
      kafka: async (port) => [await startKafka(port, dir)],
      redis: (port) => startRedis(port, dir, SLOW_LOADING),
      mosquitto: (port) => startMosquitto(port, dir),
    },
    () => {},
  )
  const replicaOf = ['--replicaof', '127.0.0.1', String(cluster.redis.port)]
  second = await startRedis(await claimPort(), join(dir, 'second'), replicaOf)
  proxy = await createProxy(cluster.redis.port)
  platform = await createPlatform({ kafka: cluster.kafka.port, redis: proxy.port, mqtt: cluster.mosquitto.port })
  await platform.up()
})
afterAll(async () => {
  await platform?.down()
  for (const one of clients) one.disconnect()
  await proxy?.close()
  await second?.stop()
  await cluster?.stop()
  rmSync(dir, { recursive: true, force: true })
})

const replication = async (redis: Redis, expected: string) => (await redis.info('replication')).includes(expected)

/** Lets the address lead to another server, for new connections only. */
function leadTo(server: Server) {
  proxy.target = server.port
  platform.redis.disconnect(true) // the test's own look goes there too
}

const notReady = async () => {
  const reply = await fetch(`${platform.consumer.url}/health/ready`)
  return reply.ok ? '' : reply.text()
}

/** Swaps the roles of master and replica under load, then lets the address lead to the new master. */
async function expectHealedAfterSwap(name: string, master: Server, replica: Server) {
  const [former, later] = [client(master.port), client(replica.port)]
  await eventually(() => replication(later, 'master_link_status:up'), 'the replica follows')
  let healedMs = Number.NaN
  const row = await runCell(platform, cluster, name, LOAD, async () => {
    await former.call('FAILOVER', 'TO', '127.0.0.1', String(replica.port))
    await eventually(() => replication(later, 'role:master'), 'the replica is the master')
    await eventually(() => replication(former, 'master_link_status:up'), 'the master is a replica')
    await eventually(async () => (await notReady()).includes('READONLY'), 'the consumer met the replica')
    const swappedMs = performance.now()
    leadTo(replica)
    await eventually(async () => (await notReady()) === '', 'healed', HEALED_MS)
    healedMs = performance.now() - swappedMs
    return []
  })
  expect(row).toMatchObject(clean)
  expect(healedMs).toBeLessThan(HEALED_MS)
}

test(
  'roles swapped under load: healed within 5 s of the swap, nothing missing',
  () => expectHealedAfterSwap('swapped', cluster.redis, second),
  120_000,
)

test('a former master that is loading its data: left for the new one within 5 s', async () => {
  const { prefix, consumer } = platform
  const [former, later] = [client(cluster.redis.port), client(second.port)]
  const id = platform.id('loading')
  // the first is a replica still; these make it load for ten seconds
  const filler = later.pipeline()
  for (let i = 0; i < 10_000; i++) filler.set(platform.id(`filler-${i}`), '')
  await filler.exec()
  await eventually(async () => (await former.dbsize()) === (await later.dbsize()), 'the replica follows')
  expect(await consumer.stop()).toBe(0)
  await cluster.redis.stop()
  leadTo(cluster.redis)
  const started = cluster.redis.start()
  await consumer.start()
  const device = await platform.device()
  await device.publishAsync(`${prefix}/${id}/data`, '1', { qos: 1 })
  await eventually(
    async () => (await notReady()).includes('LOADING'),
    () => `it loads: ${consumer.log()}`,
  )
  leadTo(second)
  await eventually(async () => (await later.hget(lastStateKey(id), 'payload')) === '1', 'the reading', HEALED_MS)
  await eventually(async () => (await notReady()) === '', 'ready')
  expect(await later.zcard(historyKey(id))).toBe(1)
  await started
})

test.runIf(isNew())(
  'roles swapped with REDIS_DURABILITY=fsync',
  async () => {
    expect(await platform.consumer.stop()).toBe(0)
    await platform.consumer.start({ REDIS_DURABILITY: 'fsync' })
    await platform.consumer.ready()
    await client(cluster.redis.port).replicaof('127.0.0.1', second.port)
    await expectHealedAfterSwap('durable', second, cluster.redis)
  },
  120_000,
)
