// Three Kafka brokers under load: one killed, then all restarted one after the other. Every reading arrives, in order.
import { expect, test } from 'vitest'
import { usePlatform } from '../fixture.js'
import { eventually } from '../platform.js'
import { rollingRestart } from './brokers.js'
import { runCell } from './cell.js'
import { busiestBroker, inSync, ledAs } from './replicas.js'

const LOAD = { devices: 20, ratePerSecond: 1000, beforeMs: 1000, afterMs: 1000 }
const clean = { missing: 0, out_of_order: 0, foreign: 0, missing_in_history: 0, wrong_last_state: 0, lost_by_broker: 0 }

const fixture = usePlatform({
  servers: { kafkaBrokers: 3 },
  async start(platform) {
    await platform.up()
    await inSync(platform)
  },
})

test('the broker that leads most partitions is killed, others lead, and it comes back', async () => {
  const { platform, cluster } = fixture
  const row = await runCell(platform, cluster, 'kill', LOAD, async () => {
    const id = await busiestBroker(platform)
    const broker = cluster.brokers[id - 1]
    if (!broker) throw new Error(`there is no broker ${id}`)
    await broker.signal('SIGKILL')
    await ledAs(platform, ({ leader }) => leader > 0 && leader !== id, 'others lead')
    await broker.start()
    await inSync(platform)
  })
  expect(row.sent).toBeGreaterThan(5 * LOAD.ratePerSecond)
  expect(row).toMatchObject(clean)
}, 180_000)

test('a rolling restart', async () => {
  const { platform, cluster } = fixture
  const row = await runCell(platform, cluster, 'roll', LOAD, () => rollingRestart(platform, cluster))
  expect(row.sent).toBeGreaterThan(5 * LOAD.ratePerSecond)
  expect(row).toMatchObject(clean)
}, 180_000)

test('fewer replicas in sync than the topic needs: not ready within 15 s, with the reason, and nothing is lost', async () => {
  const { platform, cluster } = fixture
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
  })
  await admin.disconnect()
  expect(row).toMatchObject(clean)
}, 180_000)
