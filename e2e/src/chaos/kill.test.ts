// Each of the five processes killed under load: every reading that was acknowledged arrives, in order.
import type { Cluster } from '@iot/stack/cluster'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createPlatform, type Platform } from '../platform.js'
import { startServers } from '../servers.js'
import { COMPONENTS, runCell, strike } from './cell.js'

const LOAD = { devices: 20, ratePerSecond: 500, beforeMs: 2000, afterMs: 1000 }

let cluster: Cluster
let platform: Platform
beforeAll(async () => {
  cluster = await startServers()
  platform = await createPlatform({
    kafka: cluster.kafka.port,
    redis: cluster.redis.port,
    mqtt: cluster.mosquitto.port,
  })
  await platform.up()
})
afterAll(async () => {
  await platform?.down()
  await cluster?.stop()
})

test.each(COMPONENTS)('%s killed under load: nothing is missing, out of order or wrong', async (component) => {
  const row = await runCell(platform, cluster, `kill-${component}`, LOAD, () =>
    strike(platform, cluster, { component, kind: 'SIGKILL' }, 0),
  )
  expect(row.sent).toBeGreaterThan(LOAD.ratePerSecond)
  expect(row).toMatchObject({
    missing: 0,
    out_of_order: 0,
    foreign: 0,
    missing_in_history: 0,
    wrong_last_state: 0,
    ...(component === 'mosquitto' ? {} : { lost_by_broker: 0 }),
  })
}, 120_000)
