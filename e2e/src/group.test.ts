// Consumers come, go and freeze under load: nothing is missing, nothing is published again without need, and Redis
// never shows an older state after a newer one.
import { lastStateKey } from '@iot/shared/contract'
import type { Cluster } from '@iot/stack/cluster'
import { expect, test } from 'vitest'
import { runCell } from './chaos/cell.js'
import { usePlatform } from './fixture.js'
import { eventually, type Platform } from './platform.js'

const LOAD = { devices: 20, ratePerSecond: 500, beforeMs: 1000, afterMs: 1000 }
const clean = { missing: 0, out_of_order: 0, repeated: 0, foreign: 0, missing_in_history: 0, wrong_last_state: 0 }

let platform: Platform
let cluster: Cluster
const fixture = usePlatform({
  servers: {}, // of its own: MONITOR would see the other tests
  async start(started) {
    platform = started
    cluster = fixture.cluster
    await platform.up()
  },
})

/** Every HSET of a last_state that Redis executes, per key: the sequence numbers in the order of execution. */
async function watchStates() {
  const monitor = await platform.redis.monitor()
  const seqs = new Map<string, number[]>()
  monitor.on('monitor', (_time: string, args: string[]) => {
    const [command = '', key = '', , payload = ''] = args
    if (command.toUpperCase() !== 'HSET' || !key.startsWith(lastStateKey(''))) return
    const seq = Number(JSON.parse(payload).seq)
    const own = seqs.get(key)
    if (own) own.push(seq)
    else seqs.set(key, [seq])
  })
  return { seqs, end: () => monitor.disconnect() }
}

/** The updates of the devices whose name contains `name`: how many there were, and how many of them again. */
async function watchUpdates(name: string) {
  const subscriber = platform.redis.duplicate()
  await subscriber.psubscribe(`device-updates:*${name}*`)
  const newest = new Map<string, number>()
  const counts = { updates: 0, again: 0 }
  subscriber.on('pmessage', (_pattern: string, channel: string, text: string) => {
    const seq = Number(JSON.parse(text).payload.seq)
    counts.updates++
    if (seq <= (newest.get(channel) ?? -1)) counts.again++
    else newest.set(channel, seq)
  })
  return { counts, end: () => subscriber.disconnect() }
}

const members = async () => {
  const admin = platform.kafka.admin()
  await admin.connect()
  try {
    const { groups } = await admin.describeGroups([`group-${platform.run}`])
    return groups[0]?.state === 'Stable' ? groups[0].members.length : 0
  } finally {
    await admin.disconnect()
  }
}

test('one consumer, three, one again: nothing is published again', async () => {
  const updates = await watchUpdates('scaled')
  const row = await runCell(platform, cluster, 'scaled', LOAD, async () => {
    const more = [await platform.newConsumer(), await platform.newConsumer()]
    for (const consumer of more) await consumer.start()
    await eventually(async () => (await members()) === 3, 'three members')
    await Promise.all(more.map((consumer) => consumer.ready()))
    for (const consumer of more) expect(await consumer.stop()).toBe(0)
    await eventually(async () => (await members()) === 1, 'one member')
    return []
  })
  updates.end()
  expect(row).toMatchObject(clean)
  expect(updates.counts.updates).toBeGreaterThan(1000)
  expect(updates.counts.again).toBe(0)
}, 120_000)

test('a consumer that was frozen while another took over sets no last_state back', async () => {
  const states = await watchStates()
  const other = await platform.newConsumer()
  const row = await runCell(platform, cluster, 'frozen', LOAD, async () => {
    await other.start()
    await eventually(async () => (await members()) === 2, 'two members')
    for (const frozen of [platform.consumer, other]) {
      frozen.signal('SIGSTOP')
      await eventually(async () => (await members()) === 1, 'the group goes on without it', 60_000)
      frozen.signal('SIGCONT')
      await eventually(async () => (await members()) === 2, 'it is back')
    }
    return []
  })
  states.end()
  expect(row).toMatchObject(clean)
  const keys = [...states.seqs].filter(([key]) => key.includes('frozen'))
  expect(keys).toHaveLength(LOAD.devices)
  for (const [, seqs] of keys) expect(seqs).toEqual([...seqs].sort((a, b) => a - b))
}, 180_000)

test('two topics in one group: both consumers say so, and what to do', async () => {
  const other = await platform.newConsumer()
  const both = [platform.consumer, other]
  const problemOf = async ({ url }: { url: string }): Promise<string> => {
    const text = await (await fetch(`${url}/health/ready`)).text()
    return (JSON.parse(text) as { not_ready?: { kafka?: string } }).not_ready?.kafka ?? ''
  }
  await other.start({ KAFKA_TOPIC: `${platform.topic}-other` })
  const isNamed = (problem: string) =>
    problem.includes(`group-${platform.run} is shared`) && problem.includes(`${platform.topic}-other`)
  for (const consumer of both)
    await eventually(async () => isNamed(await problemOf(consumer)), 'not ready, with the reason', 15_000)
  expect(await problemOf(other)).toContain('KAFKA_GROUP_ID')
  // and what is there is stored all the same
  const device = await platform.device()
  const id = platform.id('shared-group')
  await device.publishAsync(`${platform.prefix}/${id}/data`, '1', { qos: 1 })
  await eventually(() => platform.redis.exists(lastStateKey(id)), 'the reading is stored')
  expect(await other.stop()).toBe(0)
  await platform.consumer.ready(15_000)
}, 90_000)

test('SIGTERM while Kafka is away ends cleanly and in time; nothing is missing after', async () => {
  const row = await runCell(platform, cluster, 'left', LOAD, async () => {
    await cluster.kafka.stop()
    await eventually(async () => !(await fetch(`${platform.consumer.url}/health/ready`)).ok, 'not ready', 15_000)
    const startedMs = Date.now()
    expect(await platform.consumer.stop()).toBe(0)
    expect(Date.now() - startedMs).toBeLessThan(10_000)
    await cluster.kafka.start()
    await platform.consumer.start()
    await platform.consumer.ready(60_000)
    return []
  })
  expect(row).toMatchObject(clean)
}, 180_000)

test('SIGTERM at once after Kafka went away', async () => {
  await cluster.kafka.signal('SIGKILL')
  const startedMs = Date.now()
  expect(await platform.consumer.stop()).toBe(0)
  expect(Date.now() - startedMs).toBeLessThan(10_000)
  await cluster.kafka.start()
  await platform.consumer.start()
  await platform.consumer.ready(60_000)
}, 120_000)
