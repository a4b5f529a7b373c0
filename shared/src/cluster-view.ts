// The cluster as its last answer shows it: who leads the partitions of the topics we write to, how many there are, and
// what of it keeps records from being stored. Fewer partitions than before are believed only when they stay so, for a
// broker that lags tells of how it was. Pure: no server, the clock is handed in.
import { describe } from './errors.js'
import type { Metadata, PartitionMetadata } from './kafka/connections.js'

const BELIEVED_MS = 2000

export type ClusterView = {
  /** Takes over an answer about all topics that are written to. */
  adopt(metadata: Metadata): void
  /** How many partitions each topic has; topics that cannot be used are not in it. */
  readonly counts: ReadonlyMap<string, number>
  /** The broker that leads a partition; null where there is none, or it is not known. */
  leaderOf(topic: string, partition: number): number | null
  /** How many brokers lead partitions. */
  readonly leading: number
  /** What keeps records from being stored, in words; null while nothing does. */
  readonly problem: string | null
}

export function createClusterView(options: {
  /** In-sync replicas that a topic needs to take records. */
  minInSync: (topic: string) => number
  nowMs: () => number
}): ClusterView {
  const { minInSync, nowMs } = options
  const believed = new Map<string, number>() // partitions, of topics that cannot be used now too
  const shrunk = new Map<string, { count: number; sinceMs: number }>()
  let leaders = new Map<string, Map<number, number | null>>()
  let counts = new Map<string, number>()
  let leading = 0
  let problem: string | null = null

  const isDoubtful = (topic: string, count: number): boolean => {
    if (count >= (believed.get(topic) ?? 0)) shrunk.delete(topic)
    else {
      const seen = shrunk.get(topic)
      if (seen?.count !== count) shrunk.set(topic, { count, sinceMs: nowMs() })
      if (seen?.count !== count || nowMs() - seen.sinceMs < BELIEVED_MS) return true
    }
    believed.set(topic, count)
    return false
  }

  const weakness = (topic: string, partitions: PartitionMetadata[]): string | null => {
    const leaderless = partitions.find(({ leader }) => leader === null)
    if (leaderless) return `${topic}/${leaderless.partition} has no leader`
    const needed = minInSync(topic) // of a partition with fewer replicas Kafka 4 asks for all of them
    const under = partitions.find(({ inSync, replicas }) => inSync < Math.min(needed, replicas))
    return under ? `${topic}/${under.partition} has ${under.inSync} in-sync replicas, ${needed} are needed` : null
  }

  /** What is wrong with a topic, in words. */
  const look = (topic: string, answer: PartitionMetadata[] | Error): string | null => {
    if (answer instanceof Error) return `topic ${topic}: ${describe(answer)}`
    if (isDoubtful(topic, answer.length)) return `topic ${topic} has ${answer.length} partitions, fewer than before`
    counts.set(topic, answer.length)
    leaders.set(topic, new Map(answer.map(({ partition, leader }) => [partition, leader])))
    return weakness(topic, answer)
  }

  return {
    get counts() {
      return counts
    },
    get leading() {
      return leading
    },
    get problem() {
      return problem
    },
    leaderOf: (topic, partition) => leaders.get(topic)?.get(partition) ?? null,
    adopt(metadata) {
      counts = new Map()
      leaders = new Map()
      const problems = [...metadata.topics].map(([topic, answer]) => look(topic, answer))
      problem = problems.find((one) => one !== null) ?? null
      const all = [...leaders.values()].flatMap((partitions) => [...partitions.values()])
      leading = new Set(all.filter((leader) => leader !== null)).size
    },
  }
}
