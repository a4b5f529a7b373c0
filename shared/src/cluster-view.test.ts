// What a publisher believes of the cluster: without a server.
import { expect, test } from 'vitest'
import { createClusterView } from './cluster-view.js'
import { errorOf, type KafkaError, type Metadata, type PartitionMetadata } from './kafka/connections.js'

function planted(minInSync = 1) {
  const clock = { nowMs: 0 }
  const view = createClusterView({ minInSync: () => minInSync, nowMs: () => clock.nowMs })
  const adopt = (topics: Record<string, PartitionMetadata[] | KafkaError>) =>
    view.adopt({ brokers: 3, topics: new Map(Object.entries(topics)) } satisfies Metadata)
  return { clock, view, adopt }
}
const partitions = (...leaders: (number | null)[]): PartitionMetadata[] =>
  leaders.map((leader, partition) => ({ partition, leader, replicas: 3, inSync: 3 }))

test('leaders, counts and how many brokers lead', () => {
  const { view, adopt } = planted()
  expect(view.leaderOf('t', 0)).toBeNull()
  adopt({ t: partitions(1, 2, 1), 't-dlq': partitions(2) })
  expect([0, 1, 2, 3].map((partition) => view.leaderOf('t', partition))).toEqual([1, 2, 1, null])
  expect(view.leaderOf('other', 0)).toBeNull()
  expect([...view.counts]).toEqual([
    ['t', 3],
    ['t-dlq', 1],
  ])
  expect(view.leading).toBe(2)
  expect(view.problem).toBeNull()
})

test('a partition without a leader, and a topic that cannot be used, are said; the others can be', () => {
  const { view, adopt } = planted()
  adopt({ t: partitions(1, null), 't-dlq': partitions(2) })
  expect(view.problem).toBe('t/1 has no leader')
  expect(view.leading).toBe(2)
  adopt({ t: errorOf(3) as KafkaError, 't-dlq': partitions(2) })
  expect(view.problem).toMatch(/^topic t: .*/)
  expect([...view.counts.keys()]).toEqual(['t-dlq'])
  expect([view.leaderOf('t', 0), view.leaderOf('t-dlq', 0)]).toEqual([null, 2])
})

test('too few in-sync replicas: as many as are needed, but no more than there are replicas', () => {
  const { view, adopt } = planted(2)
  const with_ = (replicas: number, inSync: number) => [{ partition: 0, leader: 1, replicas, inSync }]
  adopt({ t: with_(3, 1) })
  expect(view.problem).toBe('t/0 has 1 in-sync replicas, 2 are needed')
  expect(view.leaderOf('t', 0)).toBe(1) // Kafka decides
  adopt({ t: with_(3, 2) })
  expect(view.problem).toBeNull()
  adopt({ t: with_(1, 1) })
  expect(view.problem).toBeNull()
})

test('more partitions are believed at once, fewer when they stay so for two seconds', () => {
  const { clock, view, adopt } = planted()
  adopt({ t: partitions(1, 1) })
  adopt({ t: partitions(1, 1, 1, 1) })
  expect(view.counts.get('t')).toBe(4)
  adopt({ t: partitions(2) })
  expect(view.counts.has('t')).toBe(false)
  expect(view.problem).toBe('topic t has 1 partitions, fewer than before')
  clock.nowMs = 1900
  adopt({ t: partitions(2, 2) }) // another number: the time begins anew
  clock.nowMs = 3800
  adopt({ t: partitions(2, 2) })
  expect(view.leaderOf('t', 0)).toBeNull()
  adopt({ t: partitions(1, 1, 1, 1) }) // the broker had lagged
  expect([view.counts.get('t'), view.problem]).toEqual([4, null])
  adopt({ t: partitions(2) })
  clock.nowMs = 5800
  adopt({ t: partitions(2) })
  expect([view.counts.get('t'), view.leaderOf('t', 0), view.problem]).toEqual([1, 2, null])
})
