// Membership in a consumer group: join, heartbeat, commit, leave. The group's coordinator is looked for again whenever
// it moves or dies, and the membership outlives that: the member keeps its id and its generation, so that the group
// need not rebalance when a broker goes.
import kafkajs from 'kafkajs'
import { errorOf, type KafkaConnections, type KafkaError } from './connections.js'
import type { Reached } from './topic-state.js'

const { MemberMetadata, MemberAssignment } = kafkajs.AssignerProtocol
const PROTOCOL = 'RoundRobinAssigner' // kafkajs's own, so that members of an earlier version can be in the same group
const PROTOCOL_TYPE = 'consumer'
/** The coordinator is another broker now, or not to be had at this moment. */
const COORDINATOR_ERRORS = new Set([
  'NOT_COORDINATOR_FOR_GROUP',
  'GROUP_COORDINATOR_NOT_AVAILABLE',
  'GROUP_LOAD_IN_PROGRESS',
])
/** The group goes on without this membership: join again. */
const LOST = new Set(['UNKNOWN_MEMBER_ID', 'ILLEGAL_GENERATION', 'FENCED_INSTANCE_ID'])

export type GroupOptions = {
  groupId: string
  topics: string[]
  /** After this long without a heartbeat the group goes on without the member. */
  sessionTimeoutMs: number
  /** How long the group waits for a member to join again. */
  rebalanceTimeoutMs: number
}
export type TopicPartition = { topic: string; partition: number }
/** `metadata` goes with the offset, and comes back with it. */
export type OffsetCommit = TopicPartition & { offset: number; metadata: string }
/** `offset` is null where none was committed. */
export type CommittedOffset = TopicPartition & { offset: number | null; metadata: string | null }
export type Assignment = { partitions: TopicPartition[]; isLeader: boolean; members: number }
export type MemberDescription = { topics: string[]; partitions: TopicPartition[] }

export type GroupMember = {
  /**
   * Joins, or joins again as the same member; returns when the group is complete.
   * @param countPartitions tells the leader how many partitions each topic has; a topic that is missing has none
   */
  join(countPartitions: (topics: string[]) => Promise<Map<string, number>>): Promise<Assignment>
  /** @throws {KafkaError} REBALANCE_IN_PROGRESS when it is time to join again */
  heartbeat(): Promise<void>
  /** Commits under the present generation; an error for each offset that was refused. @throws when nothing is known */
  commit(offsets: OffsetCommit[]): Promise<(KafkaError | null)[]>
  /** What the group has committed; needs no membership. */
  committed(partitions: TopicPartition[]): Promise<CommittedOffset[]>
  /** Who is in the group now; null while it rebalances. */
  describe(): Promise<MemberDescription[] | null>
  /** Gives up the membership, so that the group need not wait for its timeout. */
  leave(): Promise<void>
}

/** Whether the group goes on without this member. */
export const isLost = (error: unknown): boolean => LOST.has((error as KafkaError).type ?? '')
/** Whether the group is forming anew. */
export const isRebalancing = (error: unknown): boolean => (error as KafkaError).type === 'REBALANCE_IN_PROGRESS'

export function createGroupMember(connections: KafkaConnections, options: GroupOptions): GroupMember {
  const { groupId, topics, sessionTimeoutMs, rebalanceTimeoutMs } = options
  let memberId = ''
  let generationId = -1
  let coordinator: number | null = null

  const findCoordinator = async (): Promise<number> => {
    await connections.metadata(topics) // of any broker that is there
    type Response = { errorCode: number; coordinator: { nodeId: number } }
    const response = await connections.ask<Response>(null, 'GroupCoordinator', { groupId })
    throwIf(response.errorCode)
    return response.coordinator.nodeId
  }

  /** Asks the coordinator; what is wrong with it shows in an error, and the next call looks for it again. */
  const ask = async <T extends { errorCode?: number }>(api: string, args: object): Promise<T> => {
    try {
      coordinator ??= await findCoordinator()
      const response = await connections.ask<T>(coordinator, api, { groupId, ...args })
      throwIf(response.errorCode ?? 0)
      return response
    } catch (error) {
      const { type } = error as KafkaError
      if (type === undefined || COORDINATOR_ERRORS.has(type)) coordinator = null
      if (type === 'UNKNOWN_MEMBER_ID') memberId = ''
      throw error
    }
  }

  type Joined = {
    errorCode: number
    generationId: number
    leaderId: string
    memberId: string
    members: { memberId: string; memberMetadata: Buffer }[]
  }
  const requestJoin = async (): Promise<Joined> => {
    coordinator ??= await findCoordinator()
    const metadata = MemberMetadata.encode({ version: 0, topics, userData: Buffer.alloc(0) })
    const response = await connections.ask<Joined>(coordinator, 'JoinGroup', {
      groupId,
      sessionTimeout: sessionTimeoutMs,
      rebalanceTimeout: rebalanceTimeoutMs,
      memberId,
      protocolType: PROTOCOL_TYPE,
      groupProtocols: [{ name: PROTOCOL, metadata }],
    })
    const needsId = errorOf(response.errorCode)?.type === 'MEMBER_ID_REQUIRED'
    if (!needsId) return response
    memberId = response.memberId
    return requestJoin()
  }

  /** Each topic's partitions in turn to the members that want it. */
  const assign = (members: Joined['members'], counts: Map<string, number>) => {
    const wishes = members.map((member) => ({
      memberId: member.memberId,
      topics: MemberMetadata.decode(member.memberMetadata)?.topics ?? [],
    }))
    wishes.sort((a, b) => (a.memberId < b.memberId ? -1 : 1))
    const assignments = new Map(wishes.map((wish) => [wish.memberId, {} as Record<string, number[]>]))
    let turn = 0
    for (const [topic, count] of counts) {
      const takers = wishes.filter((wish) => wish.topics.includes(topic))
      for (let partition = 0; partition < count && takers.length > 0; partition++) {
        const taker = takers[turn++ % takers.length] as (typeof takers)[number]
        const assignment = assignments.get(taker.memberId) as Record<string, number[]>
        assignment[topic] = [...(assignment[topic] ?? []), partition]
      }
    }
    return [...assignments].map(([id, assignment]) => ({
      memberId: id,
      memberAssignment: MemberAssignment.encode({ version: 0, assignment, userData: Buffer.alloc(0) }),
    }))
  }

  return {
    async join(countPartitions) {
      let joined: Joined
      try {
        joined = await requestJoin()
        throwIf(joined.errorCode)
      } catch (error) {
        const { type } = error as KafkaError
        if (type === undefined || COORDINATOR_ERRORS.has(type)) coordinator = null
        if (isLost(error)) memberId = ''
        throw error
      }
      memberId = joined.memberId
      generationId = joined.generationId
      const isLeader = joined.leaderId === memberId
      let groupAssignment: ReturnType<typeof assign> = []
      if (isLeader) {
        const wanted = joined.members.flatMap((member) => MemberMetadata.decode(member.memberMetadata)?.topics ?? [])
        groupAssignment = assign(joined.members, await countPartitions([...new Set([...topics, ...wanted])]))
      }
      const synced = await ask<{ errorCode: number; memberAssignment: Buffer }>('SyncGroup', {
        generationId,
        memberId,
        groupAssignment,
      })
      const partitions = partitionsOf(synced.memberAssignment).filter(({ topic }) => topics.includes(topic))
      return { partitions, isLeader, members: joined.members.length }
    },
    async heartbeat() {
      await ask('Heartbeat', { groupGenerationId: generationId, memberId })
    },
    async commit(offsets) {
      type Response = { responses: { topic: string; partitions: { partition: number; errorCode: number }[] }[] }
      const response = await ask<Response & { errorCode?: number }>('OffsetCommit', {
        groupGenerationId: generationId,
        memberId,
        topics: byTopic(offsets).map(([topic, list]) => ({
          topic,
          partitions: list.map(({ partition, offset, metadata }) => ({ partition, offset: String(offset), metadata })),
        })),
      })
      const codes = new Map(
        response.responses.flatMap(({ topic, partitions }) =>
          partitions.map(({ partition, errorCode }) => [`${topic}/${partition}`, errorCode] as const),
        ),
      )
      const errors = offsets.map(({ topic, partition }): KafkaError | null => {
        const code = codes.get(`${topic}/${partition}`)
        return code === undefined ? new Error('Kafka did not say what became of the offset') : errorOf(code)
      })
      // an error of the group as a whole stands at each of its offsets
      const ofGroup = errors.find((error) => error && (isLost(error) || COORDINATOR_ERRORS.has(error.type ?? '')))
      if (ofGroup && COORDINATOR_ERRORS.has(ofGroup.type ?? '')) coordinator = null
      if (ofGroup) throw ofGroup
      return errors
    },
    async committed(partitions) {
      type Found = { partition: number; offset: string; metadata: string | null; errorCode: number }
      type Response = { errorCode?: number; responses: { topic: string; partitions: Found[] }[] }
      const response = await ask<Response>('OffsetFetch', {
        topics: byTopic(partitions).map(([topic, list]) => ({
          topic,
          partitions: list.map(({ partition }) => ({ partition })),
        })),
      })
      return response.responses.flatMap(({ topic, partitions: found }) =>
        found.map(({ partition, offset, metadata, errorCode }) => {
          throwIf(errorCode)
          return { topic, partition, offset: Number(offset) < 0 ? null : Number(offset), metadata }
        }),
      )
    },
    async describe() {
      type Member = { memberMetadata: Buffer; memberAssignment: Buffer }
      type Group = { errorCode: number; state: string; members: Member[] }
      const { groups } = await ask<{ errorCode?: number; groups: Group[] }>('DescribeGroups', { groupIds: [groupId] })
      const [group] = groups
      if (!group) throw new Error(`Kafka does not describe the group ${groupId}`)
      throwIf(group.errorCode)
      if (group.state !== 'Stable') return null
      return group.members.map(({ memberMetadata, memberAssignment }) => ({
        topics: MemberMetadata.decode(memberMetadata)?.topics ?? [],
        partitions: partitionsOf(memberAssignment),
      }))
    },
    async leave() {
      if (memberId === '') return
      await ask('LeaveGroup', { memberId, members: [{ memberId }] })
      memberId = ''
    },
  }
}

/** What the group has committed of some partitions of a topic; our commits carry the topic's id as metadata. */
export async function committedOf(
  member: Pick<GroupMember, 'committed'>,
  topic: string,
  partitions: number[],
): Promise<Map<number, Reached>> {
  const found =
    partitions.length === 0 ? [] : await member.committed(partitions.map((partition) => ({ topic, partition })))
  return new Map(
    found.flatMap(({ partition, offset, metadata }) =>
      offset === null ? [] : [[partition, { offset, topicId: metadata || null }]],
    ),
  )
}

function throwIf(code: number): void {
  const error = errorOf(code)
  if (error) throw error
}

function partitionsOf(assignment: Buffer): TopicPartition[] {
  const decoded = assignment.length === 0 ? null : MemberAssignment.decode(assignment)
  return Object.entries(decoded?.assignment ?? {}).flatMap(([topic, partitions]) =>
    partitions.map((partition) => ({ topic, partition })),
  )
}

function byTopic<T extends TopicPartition>(list: T[]): [string, T[]][] {
  const topics = new Map<string, T[]>()
  for (const one of list) {
    const together = topics.get(one.topic)
    if (together) together.push(one)
    else topics.set(one.topic, [one])
  }
  return [...topics]
}
