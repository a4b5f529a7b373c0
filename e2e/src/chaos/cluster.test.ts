// Three Kafka brokers under load: one killed, then all restarted one after the other. Every reading arrives, in order.
import type { Cluster } from '@iot/stack/cluster'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createPlatform, eventually, type Platform } from '../platform.js'
import { startServers } from '../servers.js'
import { inSync, killBroker, rollingRestart } from './brokers.js'
import { runCell } from './cell.js'

const LOAD = { devices: 20, ratePerSecond: 500, beforeMs: 1000, afterMs: 1000 }
const clean = { missing: 0, out_of_order: 0, foreign: 0, missing_in_history: 0, wrong_last_state: 0, lost_by_broker: 0 }

let cluster: Cluster
let platform: Platform
beforeAll(async () => {
  cluster = await startServers({ kafkaBrokers: 3 })
  platform = await createPlatform({
    kafka: cluster.brokers.map(({ port }) => port),
    redis: cluster.redis.port,
    mqtt: cluster.mosquitto.port,
  })
  await platform.up()
  await inSync(platform, 3)
})
afterAll(async () => {
  await platform?.down()
  await cluster?.stop()
})

test('a broker that leads partitions is killed, and comes back', async () => {
  const row = await runCell(platform, cluster, 'kill', LOAD, async () => {
    await killBroker(platform, cluster, cluster.brokers[1] as (typeof cluster.brokers)[number])
    return []
  })
  expect(row.sent).toBeGreaterThan(LOAD.ratePerSecond)
  expect(row).toMatchObject(clean)
}, 180_000)

test('a rolling restart', async () => {
  const row = await runCell(platform, cluster, 'roll', LOAD, async () => {
    await rollingRestart(platform, cluster)
    return []
  })
  expect(row.sent).toBeGreaterThan(LOAD.ratePerSecond)
  expect(row).toMatchObject(clean)
}, 180_000)

test('fewer replicas in sync than the topic needs: not ready within 15 s, with the reason, and nothing is lost', async () => {
  const { bridge } = platform
  const reason = async () => {
    const ready = (await (await fetch(`${bridge.url}/health/ready`)).json()) as { not_ready?: { kafka?: string } }
    return ready.not_ready?.kafka ?? ''
  }
  const admin = platform.kafka.admin()
  await admin.connect()
  const needs = (value: string) =>
    admin.alterConfigs({
      validateOnly: false,
      resources: [{ type: 2, name: platform.topic, configEntries: [{ name: 'min.insync.replicas', value }] }],
    })
  const row = await runCell(platform, cluster, 'under', LOAD, async () => {
    await needs('3')
    await cluster.brokers[2]?.stop()
    await eventually(async () => /in-sync replicas/.test(await reason()), 'the reason in /health/ready', 15_000)
    await cluster.brokers[2]?.start()
    await bridge.ready(60_000)
    await needs('2')
    return []
  })
  await admin.disconnect()
  expect(row).toMatchObject(clean)
}, 180_000)
