// Looks at the cluster every few seconds, sooner when something is wrong, for what no request of the reader tells:
// leaders that moved, partitions that were added, a topic that is gone or another one, members that read another topic,
// records that wait and are not read. Measures the lag on the way.
import { describe } from '@iot/shared/errors'
import type { KafkaConnections } from '@iot/shared/kafka/connections'
import type { GroupMember } from '@iot/shared/kafka/group'
import type { Reader } from '@iot/shared/kafka/reader'
import { type Bounds, findTopic, isMissing, leadersOf, type Topic } from '@iot/shared/kafka/topic-state'
import type { Problems } from '@iot/shared/problems'
import { createSignal } from '@iot/shared/signal'
import { inspectGroup, measureLag } from './cluster.js'
import type { CommitLog } from './commit-log.js'
import type { Looker } from './kept.js'
import { showLags } from './lag.js'
import type { Lanes } from './lanes.js'

const LOOK_MS = 5000
const LOOK_AGAIN_MS = 500 // after a failure
const UNREAD_MS = 5000 // a partition that has records and gives none for so long
const LOOKS_UNCOVERED = 2 // the first one may have met a rebalance

/** One generation of the group, as this member lives it. */
export type Session = {
  topic: Topic
  isLeader: boolean
  /** How many partitions were assigned to all members together, as the leader knows. */
  counted: number
  reader: Reader
  /** Why it is over; null while it lasts. */
  over: string | null
}

export type WatchParts = {
  topic: string
  groupId: string
  connections: KafkaConnections
  /** Asks about the group, without being a member. */
  observer: GroupMember
  problems: Problems
  lanes: Lanes
  commits: CommitLog
  keeping: Looker
  /** Creates the topic. */
  prepare: () => Promise<void>
  session: () => Session | null
  /** Ends the session, so that the group is joined again; `leave` makes the group rebalance whoever leads it. */
  onChange: (reason: string, leave: boolean) => void
}

export type Watch = {
  start(): Promise<void>
  /** Looks again soon. */
  soon(): void
  /** Creates the topic if that is what the error is about. */
  prepareIfMissing(error: unknown): Promise<void>
  stop(): void
}

export function createWatch(parts: WatchParts): Watch {
  const { topic, groupId, connections, observer, problems, lanes, commits, keeping, prepare, session, onChange } = parts
  const soon = createSignal()
  const stopped = createSignal()
  const progress = new Map<number, { position: number | null; sinceMs: number }>()
  let uncoveredLooks = 0
  let over = false

  /** The session, if it is one of this topic and not over. */
  const current = (state: Topic): Session | null => {
    const found = session()
    return found?.over === null && found.topic.id === state.id ? found : null
  }

  const prepareIfMissing = async (error: unknown) => {
    if (!isMissing(error)) return
    problems.set('topic', `topic ${topic}: ${describe(error)}`)
    await prepare().catch((refusal) => problems.set('topic', `topic ${topic} cannot be created: ${describe(refusal)}`))
  }

  /** What has changed since the session began. */
  const compare = (found: Session, state: Topic) => {
    found.reader.adopt(leadersOf(state))
    if (state.id !== found.topic.id) onChange('the topic was created again', false)
    else if (found.isLeader && state.partitions.length !== found.counted)
      onChange('the topic has another number of partitions', false)
  }

  /** A partition that has records, is ours, has room, and gives nothing. */
  const noticeUnread = ({ reader }: Session, bounds: Map<number, Bounds>) => {
    for (const [partition, position] of reader.positions) {
      const high = bounds.get(partition)?.high
      const isBehind = high !== undefined && (position === null || position < high)
      const isWaiting = isBehind && !lanes.byPartition.get(partition)?.isFull
      const known = progress.get(partition)
      const cause = `unread ${partition}`
      if (!isWaiting || !known || known.position !== position) {
        progress.set(partition, { position, sinceMs: performance.now() })
        problems.clear(cause)
      } else if (performance.now() - known.sinceMs >= UNREAD_MS) {
        const why = reader.isThrottled ? 'a quota throttles the consumer' : 'records are there, and none is read'
        problems.set(cause, `${topic}/${partition}: ${why}`)
      }
    }
  }

  const inspect = async (state: Topic) => {
    const finding = await inspectGroup(observer, groupId, topic, state)
    const found = current(state)
    if (finding === null || found === null) return
    if (finding.misuse) problems.set('misuse', finding.misuse)
    else problems.clear('misuse')
    uncoveredLooks = finding.uncovered > 0 ? uncoveredLooks + 1 : 0
    if (uncoveredLooks < LOOKS_UNCOVERED) return
    uncoveredLooks = 0
    onChange('some partitions have no member', !found.isLeader)
  }

  const look = async () => {
    const state = await findTopic(connections, topic)
    problems.clear('topic')
    const before = session()
    if (before?.over === null) compare(before, state)
    const { bounds, committed } = await measureLag(connections, observer, topic, state)
    keeping.look(state, bounds, committed)
    const found = current(state)
    if (found !== null && found === before) {
      noticeUnread(found, bounds)
      const offsetOf = (partition: number) => committed.get(partition)?.offset ?? null
      commits.confirm([...bounds.keys()].map((partition) => ({ topic, partition, offset: offsetOf(partition) })))
    }
    await inspect(state)
  }

  return {
    async start() {
      while (!over) {
        const startedMs = performance.now()
        try {
          await look()
          problems.clear('look')
        } catch (error) {
          showLags(new Map()) // nobody knows
          if (isMissing(error)) await prepareIfMissing(error)
          else problems.set('look', describe(error))
        }
        if (over) return
        await soon.wait(problems.size > 0 ? LOOK_AGAIN_MS : LOOK_MS)
        const tooSoonMs = startedMs + LOOK_AGAIN_MS - performance.now()
        if (tooSoonMs > 0 && !over) await stopped.wait(tooSoonMs)
      }
    },
    soon: soon.wake,
    prepareIfMissing,
    stop() {
      over = true
      soon.wake()
      stopped.wake()
    },
  }
}
