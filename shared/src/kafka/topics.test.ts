// What weakens the promise is said once for each topic; what is missing is created.
import type { Logger } from 'pino'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { commonSchema } from '../common-config.js'
import type { KafkaClient } from './client.js'
import type { KafkaError, Metadata } from './connections.js'
import { createTopics, type TopicOptions, topicOptions } from './topics.js'

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

const OPTIONS = { topic: 't', partitions: 6, retention: { seconds: 86_400, bytes: 0 }, historySeconds: 18_000 }

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
  return { topics: createTopics(kafka, { ...OPTIONS, ...options }, logger), warnings, created }
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

const entriesOf = (created: object[]) =>
  created.map((one) => {
    const { configEntries } = one as { configEntries: { name: string; value: string }[] }
    return Object.fromEntries(configEntries.map(({ name, value }) => [name, value]))
  })

test('a topic that is created keeps what it is told to, each partition its share; dead letters 7 days and 1 GB', async () => {
  const { topics, created } = planted(SAFE, { retention: { seconds: 86_400, bytes: 6_000_000_000 } })
  await topics.tend(metadata(3, missing))
  const [data, letters] = entriesOf(created)
  expect(data).toMatchObject({ 'retention.ms': '86400000', 'retention.bytes': '1000000000', 'segment.ms': '10800000' })
  expect(Number(data?.['segment.bytes'])).toBeLessThanOrEqual(125_000_000)
  expect(letters).toMatchObject({ 'retention.ms': '604800000', 'retention.bytes': '1000000000' })
  const unbounded = planted(SAFE)
  await unbounded.topics.tend(metadata(3, missing, 3))
  expect(entriesOf(unbounded.created)[0]).not.toHaveProperty(['retention.bytes'])
})

test('no topic is to keep less than the histories that are made of it', () => {
  const config = z.object(commonSchema).parse({ KAFKA_RETENTION_HOURS: '1', HISTORY_RETENTION_SECONDS: '7200' })
  expect(topicOptions(config).retention.seconds).toBe(7200)
})

test.each([
  ['a day', { 'retention.ms': '86400000', 'retention.bytes': '-1' }, []],
  ['for ever, as far as the disk goes', { 'retention.ms': '-1', 'retention.bytes': '1000000' }, []],
  ['for ever', { 'retention.ms': '-1', 'retention.bytes': '-1' }, [/for ever/, /for ever/]],
  ['an hour', { 'retention.ms': '3600000', 'retention.bytes': '-1' }, [/3600 s, histories go back 18000 s/]],
])('a topic that was there and keeps records for %s is left alone, and said where that does not fit', async (...args) => {
  const [, configs, words] = args
  const { topics, warnings, created } = planted({ ...SAFE, ...configs } as Record<string, string>)
  await topics.tend(metadata(3, 3))
  await topics.tend(metadata(3, 3))
  expect(created).toEqual([])
  expect(warnings).toEqual(words.map((one) => expect.objectContaining({ retention: expect.stringMatching(one) })))
  expect(topics.kept('t')?.seconds).toBe(
    configs['retention.ms'] === '-1' ? Infinity : Number(configs['retention.ms']) / 1000,
  )
})
