// REDIS_DURABILITY=fsync: offsets are committed only when the batch is on Redis's disk.
import { historyKey } from '@iot/shared/contract'
import type { Cluster } from '@iot/stack/cluster'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { runCell } from './chaos/cell.js'
import { strike } from './chaos/faults.js'
import { sharedKafka } from './fixture.js'
import { createPlatform, eventually, type Platform, portsOf } from './platform.js'
import { startServers } from './servers.js'

let cluster: Cluster
let platform: Platform
let isNew: boolean
beforeAll(async () => {
  cluster = await startServers({ kafka: sharedKafka() }) // of its own, for its Redis is configured and killed
  platform = await createPlatform(portsOf(cluster))
  const version = /redis_version:(\S+)/.exec(await platform.redis.info('server'))?.[1] ?? ''
  isNew = version.localeCompare('7.2', 'en', { numeric: true }) >= 0
  await Promise.all([platform.bridge.start(), platform.consumer.start({ REDIS_DURABILITY: 'fsync' })])
  await platform.bridge.ready()
})
afterAll(async () => {
  await platform?.down()
  await cluster?.stop()
})

test('what is not on disk is not committed; a Redis that cannot say so is refused with a clear line', async () => {
  const { redis, prefix, consumer } = platform
  const id = platform.id('disk')
  const device = await platform.device()
  if (isNew) {
    await consumer.ready()
    await redis.config('SET', 'appendfsync', 'no') // then nothing is ever known to be on disk
  }
  await device.publishAsync(`${prefix}/${id}/data`, '1', { qos: 1 })
  await platform.records(1)
  if (!isNew) {
    const ready = async () => (await fetch(`${consumer.url}/health/ready`)).text()
    const why = /REDIS_DURABILITY=fsync needs Redis 7\.2 or newer, this is \d/
    await eventually(async () => why.test(await ready()), 'it says why')
    expect(await platform.lag()).toBe(1)
    return
  }
  await eventually(() => redis.exists(historyKey(id)), 'written')
  await eventually(() => consumer.log().includes('append-only file'), 'the consumer has waited in vain')
  expect(await platform.lag()).toBe(1)
  await redis.config('SET', 'appendfsync', 'everysec')
  await eventually(async () => (await platform.lag()) === 0, 'committed')
})

test('Redis killed under load: what is committed is there', async () => {
  if (!isNew) {
    // an older Redis serves the default setting only, which answers before a slow disk has written: see
    // "appendfsync" in redis.conf
    await platform.redis.config('SET', 'appendfsync', 'always')
    expect(await platform.consumer.stop()).toBe(0)
    await platform.consumer.start({ REDIS_DURABILITY: 'server' })
  }
  await platform.consumer.ready()
  const load = { devices: 20, ratePerSecond: 200, beforeMs: 2000, afterMs: 1000 }
  const row = await runCell(platform, cluster, 'durable', load, () =>
    strike(platform, cluster, { component: 'redis', kind: 'SIGKILL' }),
  )
  expect(row).toMatchObject({ missing: 0, out_of_order: 0, foreign: 0, missing_in_history: 0, wrong_last_state: 0 })
}, 120_000)
