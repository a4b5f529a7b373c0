// A service that runs out of file descriptors heals without hands when it has some again.
import { spawnSync } from 'node:child_process'
import { lastStateKey } from '@iot/shared/contract'
import type { Cluster } from '@iot/stack/cluster'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { sharedKafka } from './fixture.js'
import { createPlatform, eventually, type Platform, portsOf } from './platform.js'
import { startServers } from './servers.js'

let cluster: Cluster
let platform: Platform
beforeAll(async () => {
  cluster = await startServers({ kafka: sharedKafka() }) // of its own, for its servers are restarted
  platform = await createPlatform(portsOf(cluster))
  await platform.up()
})
afterAll(async () => {
  await platform?.down()
  await cluster?.stop()
})

const limit = (pid: number, descriptors: string) => {
  const { status, stderr } = spawnSync('prlimit', ['--pid', String(pid), `--nofile=${descriptors}`], {
    encoding: 'utf8',
  })
  if (status !== 0) throw new Error(`prlimit: ${stderr}`)
}

test('no file descriptors while every server restarts', async () => {
  const { bridge, consumer, redis, prefix } = platform
  const services = [bridge, consumer]
  for (const { pid } of services) limit(pid(), '5:') // below what is open: nothing new can be opened
  await Promise.all([cluster.redis.stop(), cluster.mosquitto.stop()])
  await Promise.all([cluster.redis.start(), cluster.mosquitto.start()])
  const notConnected = () => bridge.log().includes('EMFILE') && consumer.log().includes('EMFILE')
  await eventually(notConnected, () => `both met the limit: ${bridge.log()}${consumer.log()}`)
  for (const { pid } of services) limit(pid(), '4096:')
  await Promise.all(services.map((service) => service.ready(60_000)))
  const id = platform.id('relieved')
  const device = await platform.device()
  await device.publishAsync(`${prefix}/${id}/data`, '1', { qos: 1 })
  await eventually(async () => (await redis.hget(lastStateKey(id), 'payload')) === '1', 'the reading')
  expect((await fetch(`${bridge.url}/devices`)).status).toBe(200)
})
