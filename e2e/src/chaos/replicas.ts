// Where a cluster's replicas are: who leads, who is in sync.
import { deadLetterTopic } from '@iot/shared/contract'
import { eventually, type Platform } from '../platform.js'
import { ask } from '../topic-reader.js'

const IN_SYNC_MS = 120_000
const OFFSETS_TOPIC = '__consumer_offsets'

export type PartitionState = { partition: number; leader: number; replicas: number[]; isr: number[] }

/** The partitions of a topic, the platform's by default; brokers go by their ids, 1 for the first. */
export async function partitionsOf({ kafka, topic }: Platform, name = topic): Promise<PartitionState[]> {
  const { topics } = await ask(kafka, (admin) => admin.fetchTopicMetadata({ topics: [name] }))
  return topics.flatMap(({ partitions }) =>
    partitions.map(({ partitionId, leader, replicas, isr }) => ({ partition: partitionId, leader, replicas, isr })),
  )
}

/** Waits until all replicas are in sync, of the platform's topics and of the offsets that consumers commit. */
export async function inSync(platform: Platform): Promise<void> {
  const isWhole = async (name: string) =>
    (await partitionsOf(platform, name)).every(
      ({ leader, replicas, isr }) => leader > 0 && isr.length === replicas.length,
    )
  for (const name of [platform.topic, deadLetterTopic(platform.topic), OFFSETS_TOPIC]) {
    await eventually(() => isWhole(name), `all replicas of ${name} in sync`, IN_SYNC_MS)
  }
}

/** The id of the broker that leads most partitions of the platform's topic. */
export async function busiestBroker(platform: Platform): Promise<number> {
  const leading = new Map<number, number>()
  for (const { leader } of await partitionsOf(platform)) leading.set(leader, (leading.get(leader) ?? 0) + 1)
  const [busiest] = [...leading].sort(([, a], [, b]) => b - a)
  if (!busiest) throw new Error('the topic has no partitions')
  return busiest[0]
}

/** Waits until every partition of the platform's topic is led as `expected` says. */
export const ledAs = (platform: Platform, expected: (state: PartitionState) => boolean, what: string) =>
  eventually(async () => (await partitionsOf(platform)).every(expected), what)
