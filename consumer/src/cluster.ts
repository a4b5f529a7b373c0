// What the cluster says of the group: what it has committed of the topic and what not, and whether its members cover it.
import type { KafkaConnections } from '@iot/shared/kafka/connections'
import { committedOf, type GroupMember } from '@iot/shared/kafka/group'
import { type Bounds, boundsOfTopic, lagsOf, type Reached, type Topic } from '@iot/shared/kafka/topic-state'
import { showLags } from './lag.js'

/** How many partitions each topic has; none where it is missing. */
export async function countPartitions(connections: KafkaConnections, names: string[]): Promise<Map<string, number>> {
  const { topics } = await connections.metadata(names)
  const count = (name: string) => {
    const partitions = topics.get(name)
    return Array.isArray(partitions) ? partitions.length : 0
  }
  return new Map(names.map((name) => [name, count(name)]))
}

/** Measures and shows the lag, of the partitions whose broker says where they end. */
export async function measureLag(
  connections: KafkaConnections,
  member: GroupMember,
  topic: string,
  state: Topic,
): Promise<{ bounds: Map<number, Bounds>; committed: Map<number, Reached> }> {
  const bounds = await boundsOfTopic(connections, topic, state)
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
