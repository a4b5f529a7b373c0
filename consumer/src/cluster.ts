// What the cluster says of the topic and the group: who leads the partitions, what the group has committed of them and
// what not, and whether its members cover them.
import type { KafkaConnections, PartitionMetadata } from '@iot/shared/kafka/connections'
import type { GroupMember } from '@iot/shared/kafka/group'
import { type Bounds, boundsOf, lookAtTopic } from '@iot/shared/kafka/topic-state'
import { type Committed, lagsOf, showLags } from './lag.js'

/** `id` is null where the broker does not tell it. */
export type Topic = { id: string | null; partitions: PartitionMetadata[] }

/** @throws when Kafka is away, or the topic is missing or may not be seen */
export async function findTopic(connections: KafkaConnections, topic: string): Promise<Topic> {
  const { id, partitions } = await lookAtTopic(connections, topic)
  if (partitions instanceof Error) throw partitions
  return { id, partitions }
}

export const isMissing = (error: unknown): boolean => (error as { type?: string }).type === 'UNKNOWN_TOPIC_OR_PARTITION'

export const leadersOf = ({ partitions }: Topic): Map<number, number | null> =>
  new Map(partitions.map(({ partition, leader }) => [partition, leader]))

/** How many partitions each topic has; none where it is missing. */
export async function countPartitions(connections: KafkaConnections, names: string[]): Promise<Map<string, number>> {
  const { topics } = await connections.metadata(names)
  const count = (name: string) => {
    const partitions = topics.get(name)
    return Array.isArray(partitions) ? partitions.length : 0
  }
  return new Map(names.map((name) => [name, count(name)]))
}

/** What the group has committed of some partitions. */
export async function committedOf(
  member: GroupMember,
  topic: string,
  partitions: number[],
): Promise<Map<number, Committed>> {
  const found =
    partitions.length === 0 ? [] : await member.committed(partitions.map((partition) => ({ topic, partition })))
  return new Map(
    found.flatMap(({ partition, offset, metadata }) =>
      offset === null ? [] : [[partition, { offset, topicId: metadata || null }]],
    ),
  )
}

/** Measures and shows the lag, of the partitions whose broker says where they end. */
export async function measureLag(
  connections: KafkaConnections,
  member: GroupMember,
  topic: string,
  state: Topic,
): Promise<{ bounds: Map<number, Bounds>; committed: Map<number, Committed> }> {
  const byLeader = new Map<number, number[]>()
  for (const { partition, leader } of state.partitions)
    if (leader !== null) byLeader.set(leader, [...(byLeader.get(leader) ?? []), partition])
  const bounds = new Map<number, Bounds>()
  const asked = [...byLeader].map(async ([leader, partitions]) => {
    const found = await boundsOf(connections, leader, topic, partitions)
    for (const [partition, bound] of found) if (!(bound instanceof Error)) bounds.set(partition, bound)
  })
  await Promise.allSettled(asked)
  const committed = await committedOf(member, topic, [...bounds.keys()])
  showLags(lagsOf(bounds, committed, state.id))
  return { bounds, committed }
}

export type GroupFinding = {
  /** What is wrong with the group's use, in words; null when nothing is. */
  misuse: string | null
  /** Partitions of the topic that no member has. */
  uncovered: number
}

/** Looks at the members; null while the group rebalances. */
export async function inspectGroup(
  member: GroupMember,
  groupId: string,
  topic: string,
  state: Topic,
): Promise<GroupFinding | null> {
  const members = await member.describe()
  if (members === null) return null
  const others = new Set(members.flatMap(({ topics }) => topics).filter((name) => name !== topic))
  const covered = new Set(
    members.flatMap(({ partitions }) => partitions.filter((one) => one.topic === topic).map((one) => one.partition)),
  )
  const uncovered = state.partitions.filter(({ partition }) => !covered.has(partition)).length
  const misuse =
    others.size === 0
      ? null
      : `the group ${groupId} is shared by consumers of ${[topic, ...others].join(', ')}: give each topic a KAFKA_GROUP_ID of its own`
  return { misuse, uncovered }
}
