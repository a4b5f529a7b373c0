// The index over a keyspace that is a map.
import { lastStateKey } from '@iot/shared/contract'
import { Problem } from '@iot/shared/http/problem'
import { afterEach, expect, test, vi } from 'vitest'
import { createDeviceIndex, lowerBound } from './device-index.js'
import type { Command } from './redis/connection.js'

const stops: (() => void)[] = []
afterEach(() => {
  for (const stop of stops.splice(0)) stop()
})
const WAIT = { timeout: 20_000 }

function build(states: Map<string, number>, maxDevices = 1000) {
  const online = new Set<string>()
  const redis = { isAway: false, refusals: 0 }
  const answer = ([name, ...args]: Command) => {
    if (name === 'HGET') return String(states.get(String(args[0]).slice(lastStateKey('').length)))
    const keys = [...states.keys()].map(lastStateKey)
    return args[0] === '0' ? ['17', keys.slice(0, 2)] : ['0', keys.slice(2)]
  }
  const read = async (commands: Command[]) => {
    if (redis.isAway) {
      redis.refusals++
      throw new Problem(503, 'REDIS_UNAVAILABLE', 'away')
    }
    return commands.map(answer)
  }
  const index = createDeviceIndex({ read }, { maxDevices, isOnline: (id) => online.has(id) })
  stops.push(index.stop)
  return { index, redis, online, read }
}

test('known is who has a state or is online, and who has neither any more is forgotten', async () => {
  const states = new Map([
    ['b', 20],
    ['a', 10],
    ['c', 30],
  ])
  const { index, online } = build(states)
  expect(index.isWhole()).toBe(false)
  index.start()
  await vi.waitFor(() => expect(index.isWhole()).toBe(true), WAIT)
  expect(index.ids()).toEqual(['a', 'b', 'c'])
  expect(['a', 'b', 'nobody'].map(index.lastHeard)).toEqual([10, 20, 0])
  online.add('0')
  index.saw('0')
  index.saw('a', 40)
  index.saw('b', 5)
  expect(index.ids()).toEqual(['0', 'a', 'b', 'c'])
  expect(['0', 'a', 'b'].map(index.lastHeard)).toEqual([0, 40, 20])
  states.delete('b')
  states.set('d', 50)
  await vi.waitFor(() => expect(index.ids()).toEqual(['0', 'a', 'c', 'd']), WAIT)
  online.delete('0')
  await vi.waitFor(() => expect(index.ids()).toEqual(['a', 'c', 'd']), WAIT)
})

test('past its bound it says that it is not whole; while Redis is away it stays as it is', async () => {
  const { index, redis } = build(new Map(['a', 'b', 'c', 'd'].map((id) => [id, 1])), 3)
  redis.isAway = true
  index.start()
  expect(redis.refusals).toBe(1)
  redis.isAway = false
  await vi.waitFor(() => expect(index.ids()).toHaveLength(3), WAIT)
  redis.isAway = true
  await vi.waitFor(() => expect(redis.refusals).toBe(3), WAIT)
  expect(index.ids()).toHaveLength(3)
  expect(index.isWhole()).toBe(false)
})

test('who may have spoken since is asked for anew', async () => {
  const states = new Map([['a', 10]])
  const { index, read } = build(states)
  index.saw('a', 10)
  states.set('a', 99)
  await index.refresh(read, ['a', 'nobody'])
  expect(index.lastHeard('a')).toBe(99)
  expect(index.ids()).toEqual(['a'])
})

test('the lower bound', () => {
  const ids = ['a', 'b', 'd']
  expect(['', 'a', 'b', 'b\0', 'c', 'd', 'e'].map((id) => lowerBound(ids, id))).toEqual([0, 0, 1, 2, 2, 2, 3])
})
