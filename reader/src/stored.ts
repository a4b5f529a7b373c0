// How far the consumers' group has stored the topic: what it has committed, asked without being a member of it.
import type { KafkaConnections } from '@iot/shared/kafka/connections'
import { committedOf, createGroupMember } from '@iot/shared/kafka/group'
import type { Reached } from '@iot/shared/kafka/topic-state'

export type Stored = {
  /** By partition; none where nothing was committed. @throws when Kafka is away */
  of(partitions: number[]): Promise<Map<number, Reached>>
  stop(): Promise<void>
}

export function createStored(connections: KafkaConnections, groupId: string, topic: string): Stored {
  const times = { sessionTimeoutMs: 0, rebalanceTimeoutMs: 0 } // of a member
  const observer = createGroupMember(connections, { groupId, topics: [topic], ...times })
  return { of: (partitions) => committedOf(observer, topic, partitions), stop: connections.close }
}
