// Consumers come, go and freeze under load: nothing is missing, and Redis never shows an older state after a newer one.
import { lastStateKey } from '@iot/shared/contract'
import { expect, test } from 'vitest'
import { runCell } from './chaos/cell.js'
import { usePlatform } from './fixture.js'
import { eventually } from './platform.js'

const LOAD = { devices: 20, ratePerSecond: 500, beforeMs: 1000, afterMs: 1000 }
const clean = { missing: 0, out_of_order: 0, repeated: 0, foreign: 0, missing_in_history: 0, wrong_last_state: 0 }

const fixture = usePlatform({ servers: {} }) // servers of its own: MONITOR would see the other tests

/** Every HSET of a last_state that Redis executes, per key: the sequence numbers in the order of execution. */
async function watchStates() {
  const monitor = await fixture.platform.redis.monitor()
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

const members = async () => {
  const { platform } = fixture
  const admin = platform.kafka.admin()
  await admin.connect()
  try {
    const { groups } = await admin.describeGroups([`group-${platform.run}`])
    return groups[0]?.state === 'Stable' ? groups[0].members.length : 0
  } finally {
    await admin.disconnect()
  }
}

test('one consumer, three, one again', async () => {
  const { platform, cluster } = fixture
  const row = await runCell(platform, cluster, 'scaled', LOAD, async () => {
    const more = [await platform.newConsumer(), await platform.newConsumer()]
    for (const consumer of more) await consumer.start()
    await eventually(async () => (await members()) === 3, 'three members')
    await Promise.all(more.map((consumer) => consumer.ready()))
    for (const consumer of more) expect(await consumer.stop()).toBe(0)
    await eventually(async () => (await members()) === 1, 'one member')
    return []
  })
  expect(row).toMatchObject(clean)
}, 120_000)

test('a consumer that was frozen while another took over sets no last_state back', async () => {
  const { platform, cluster } = fixture
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
