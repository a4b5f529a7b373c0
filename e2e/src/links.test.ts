// Connections that go wrong on every hop: half-open ones are noticed and healed, slow, sliced and cut ones carry on, and
// what arrives spoilt from Kafka is noticed.
import type { Cluster } from '@iot/stack/cluster'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { runCell } from './chaos/cell.js'
import { createPlatform, eventually, type Platform } from './platform.js'
import { createProxy, type Direction, type Shape, type TcpProxy } from './proxy.js'
import { startServers } from './servers.js'

const HOPS = ['mqtt', 'kafka', 'redis'] as const
const LOAD = { devices: 10, ratePerSecond: 200, beforeMs: 1000, afterMs: 1000 }
const clean = { missing: 0, out_of_order: 0, foreign: 0, missing_in_history: 0, wrong_last_state: 0 }

let cluster: Cluster
let platform: Platform
let proxies: Record<(typeof HOPS)[number], TcpProxy>
beforeAll(async () => {
  proxies = { mqtt: await createProxy(), kafka: await createProxy(), redis: await createProxy() }
  cluster = await startServers({ kafkaProxy: proxies.kafka.port })
  proxies.mqtt.target = cluster.mosquitto.port
  proxies.kafka.target = cluster.kafka.port
  proxies.redis.target = cluster.redis.port
  platform = await createPlatform({ mqtt: proxies.mqtt.port, kafka: proxies.kafka.port, redis: proxies.redis.port })
  await platform.up()
})
afterAll(async () => {
  await platform?.down()
  await cluster?.stop()
  await Promise.all(Object.values(proxies).map((proxy) => proxy.close()))
})

const isNotReady = async (url: string) => (await fetch(`${url}/health/ready`)).status === 503

describe.each(HOPS)('%s', (hop) => {
  test.each<Direction>(['up', 'down'])('half-open %s: noticed, healed, nothing missing', async (direction) => {
    const affected = { mqtt: platform.bridge, kafka: platform.bridge, redis: platform.consumer }[hop]
    const row = await runCell(platform, cluster, `${hop}-${direction}`, LOAD, async () => {
      proxies[hop].stall(direction)
      await eventually(() => isNotReady(affected.url), 'noticed', 30_000)
      proxies[hop].heal()
      return []
    })
    expect(row).toMatchObject(clean)
    await Promise.all([platform.bridge.ready(), platform.consumer.ready()])
  }, 150_000)
})

test.each<[string, Shape]>([
  ['slow', { delayMs: 20 }],
  ['sliced into single bytes', { pieceBytes: 1 }],
  ['cut every few kilobytes', { cut: { direction: 'down', afterBytes: 4096 } }],
])(
  'links that are %s carry on, nothing missing',
  async (name, shape) => {
    const row = await runCell(
      platform,
      cluster,
      name.slice(0, 3),
      { ...LOAD, devices: 5, ratePerSecond: 50 },
      async () => {
        for (const proxy of Object.values(proxies)) proxy.shape = shape
        await new Promise((resolve) => setTimeout(resolve, 5000))
        for (const proxy of Object.values(proxies)) proxy.shape = {}
        return []
      },
    )
    expect(row.sent).toBeGreaterThan(50)
    expect(row).toMatchObject(clean)
  },
  150_000,
)

test('records that are spoilt on their way from Kafka are fetched again: none is stored so, none a dead letter', async () => {
  let spoilt = 0
  const spoil = (chunk: Buffer) => {
    const at = chunk.indexOf('"seq":')
    if (at === -1 || spoilt === 2) return chunk
    spoilt++
    const other = Buffer.from(chunk)
    other.write('S', at + 1)
    return other
  }
  const row = await runCell(platform, cluster, 'spoilt', { ...LOAD, devices: 5 }, async () => {
    proxies.kafka.shape = { spoil }
    await eventually(() => spoilt === 2, 'two answers are spoilt')
    proxies.kafka.shape = {}
  })
  expect(row).toMatchObject(clean)
}, 150_000)
