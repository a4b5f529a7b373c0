// What weakens the promise is said once for each topic; what is missing is created.
import type { Logger } from 'pino'
import { expect, test } from 'vitest'
import type { KafkaClient } from './client.js'
import type { KafkaError, Metadata } from './connections.js'
import { createTopics, type TopicOptions } from './topics.js'

const missing: KafkaError = Object.assign(new Error('no such topic'), { type: 'UNKNOWN_TOPIC_OR_PARTITION' })
const metadata = (
  brokers: number,
  replicas: number | KafkaError,
  letters: number | KafkaError = replicas,
): Metadata => ({
  brokers,
  topics: new Map(
    Object.entries({ t: replicas, 't-dlq': letters }).map(([name, of]) => [
      name,
      of instanceof Error ? of : [{ partition: 0, leader: 1, replicas: of, inSync: of }],
    ]),
  ),
})

function planted(configs: Record<string, string>, options: Partial<TopicOptions> = {}) {
  const warnings: object[] = []
  const created: object[] = []
  const admin = {
    connect: async () => {},
    disconnect: async () => {},
    createTopics: async ({ topics }: { topics: object[] }) => created.push(...topics) > 0,
    describeConfigs: async ({ resources }: { resources: { name: string }[] }) => ({
      resources: resources.map(({ name }) => ({
        resourceName: name,
        configEntries: Object.entries(configs).map(([configName, configValue]) => ({ configName, configValue })),
      })),
    }),
  }
  const logger = { warn: (fields: object) => warnings.push(fields), info: () => {} } as unknown as Logger
  const kafka = { admin: () => admin } as unknown as KafkaClient
  return { topics: createTopics(kafka, { topic: 't', partitions: 6, ...options }, logger), warnings, created }
}
const SAFE = { 'min.insync.replicas': '2', 'unclean.leader.election.enable': 'false' }

test.each([
  ['three replicas, two in sync', 3, 3, SAFE, null],
  ['one broker: there is nothing to be had', 1, 1, { ...SAFE, 'min.insync.replicas': '1' }, null],
  ['Redpanda, which has no min.insync.replicas', 3, 3, {}, null],
  ['fewer replicas than three', 5, 2, SAFE, ['2 of 3 replicas']],
  ['fewer replicas than brokers', 2, 1, SAFE, ['1 of 2 replicas']],
  ['one in sync is enough', 3, 3, { ...SAFE, 'min.insync.replicas': '1' }, ['min.insync.replicas is 1']],
  ['unclean leaders', 3, 3, { ...SAFE, 'unclean.leader.election.enable': 'true' }, ['unclean leader election is on']],
])('%s', async (_what, brokers, replicas, configs, weaknesses) => {
  const { topics, warnings } = planted(configs as Record<string, string>)
  await topics.tend(metadata(brokers, replicas))
  await topics.tend(metadata(brokers, replicas))
  const expected = weaknesses ? ['t', 't-dlq'].map((topic) => ({ topic, weaknesses })) : []
  expect(warnings).toEqual(expected)
})

test('what is missing is created, with the replicas that were asked for or the cluster’s own', async () => {
  const { topics, created } = planted(SAFE, { replicationFactor: 3 })
  await topics.tend(metadata(3, missing, 3))
  expect(created).toEqual([expect.objectContaining({ topic: 't', numPartitions: 6, replicationFactor: 3 })])
  const other = planted(SAFE)
  await other.topics.tend(metadata(3, 3, missing))
  expect(other.created).toEqual([expect.objectContaining({ topic: 't-dlq', numPartitions: 1, replicationFactor: -1 })])
})

test('how many replicas must be in sync is known once the topic was looked at', async () => {
  const { topics } = planted(SAFE)
  expect(topics.minInSync('t')).toBe(1)
  await topics.tend(metadata(3, 3))
  expect(topics.minInSync('t')).toBe(2)
})
