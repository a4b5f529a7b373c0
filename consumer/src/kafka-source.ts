// The consumer's Kafka side: a membership in the group, the assigned partitions read into lanes, and commits of what
// was written.
//
// A session is one generation of the group. When it ends, what is being written is finished and committed before the
// partitions are given up, so that a rebalance repeats next to nothing.
import { backoffMs } from '@iot/shared/backoff'
import { createCondition } from '@iot/shared/condition'
import { describe } from '@iot/shared/errors'
import type { KafkaConnections } from '@iot/shared/kafka/connections'
import { committedOf, createGroupMember, isLost, isRebalancing } from '@iot/shared/kafka/group'
import { createReader } from '@iot/shared/kafka/reader'
import { findTopic, leadersOf, type Reached, type Topic } from '@iot/shared/kafka/topic-state'
import type { Kept } from '@iot/shared/kafka/topics'
import { withDeadline } from '@iot/shared/lifecycle'
import { createProblems } from '@iot/shared/problems'
import { createSignal } from '@iot/shared/signal'
import type { Logger } from 'pino'
import { Counter } from 'prom-client'
import type { SourceRecord } from './batch.js'
import { countPartitions } from './cluster.js'
import { createCommitLog } from './commit-log.js'
import { createLooker } from './kept.js'
import { countSkipped } from './lag.js'
import { createLanes } from './lanes.js'
import { createWatch, type Session } from './watch.js'

const SESSION_TIMEOUT_MS = 10_000 // after a crash the group waits this long before others read our partitions
const REBALANCE_TIMEOUT_MS = 30_000
const HEARTBEAT_MS = 1000 // as long as it takes to learn of a rebalance, for which all members wait
const ASSESS_MS = 1000
const PATIENCE_MS = 3000 // a leader that moves is not worth a line
const SILENT_MS = 10_000 // without an answer of the group
const COMMIT_MS = 250
const SETTLE_MS = 4000 // for what is being written when a generation ends; with the flush less than the session timeout
const FLUSH_MS = 2000
const LEAVE_MS = 500
const DRAIN_SHARE = 0.6 // of the time to stop

const stored = new Counter({ name: 'iot_stored_messages_total', help: 'messages written and committed' })
const joins = new Counter({ name: 'iot_group_joins_total', help: 'times that the consumer group was joined' })

export type KafkaSource = {
  start(): void
  /** Null while records are read, or nothing is there to read; else what is wrong. */
  check(): string | null
  /** Reads nothing more, writes and commits what was read, if that can be done in time, and leaves the group. */
  stop(withinMs: number): Promise<void>
}

export type KafkaSourceParts = {
  /** Makes connections; the source opens some for the group, for reading, and for looking. */
  connect: () => KafkaConnections
  /** Called when the topic is missing, to create it. */
  prepare: () => Promise<void>
  /** What the topic is set to keep; null while that is not known. */
  kept: () => Kept | null
  /** Stores one batch of a partition for good; what it throws is tried again, with the same batch. */
  write: (records: SourceRecord[], partition: number) => Promise<void>
  onFatal: (error: unknown) => void
  logger: Logger
}

export type KafkaSourceOptions = { topic: string; groupId: string; batchSize: number; batchIntervalMs: number }

// longer than other functions: the parts of one machine, of a few lines each, that share the session
export function createKafkaSource(parts: KafkaSourceParts, options: KafkaSourceOptions): KafkaSource {
  const { connect, prepare, kept, write, onFatal, logger } = parts
  const { topic, groupId, batchSize, batchIntervalMs } = options
  const nowMs = () => performance.now()
  const connections = { group: connect(), reading: connect(), looking: connect() }
  const group = {
    groupId,
    topics: [topic],
    sessionTimeoutMs: SESSION_TIMEOUT_MS,
    rebalanceTimeoutMs: REBALANCE_TIMEOUT_MS,
  }
  const member = createGroupMember(connections.group, group)
  const problems = createProblems(nowMs)
  const condition = createCondition(
    'kafka',
    { wrong: 'Kafka is not giving records; retrying', right: 'Kafka is giving records' },
    logger,
  )
  const ended = createSignal() // a session, or all
  let session: Session | null = null
  let generation = 0
  let answeredMs = 0 // when the group last did
  let hasJoined = false
  let mustLeave = false
  let stopping = false
  let running: Promise<unknown> = Promise.resolve()
  let assessing: NodeJS.Timeout | undefined

  const end = (reason: string) => {
    if (session === null || session.over !== null) return
    session.over = reason
    session.reader.stop()
    logger.debug({ reason }, 'session over')
    ended.wake()
  }

  const commits = createCommitLog({
    async commit(owed) {
      if (session === null) throw new Error('not in the group')
      const metadata = session.topic.id ?? ''
      return member.commit(
        owed.map(({ topic: name, partition, next: offset }) => ({ topic: name, partition, offset, metadata })),
      )
    },
    onCommitted(count) {
      stored.inc(count)
      problems.clear('commit')
    },
    onFailed(error) {
      problems.set('commit', `offsets are not committed: ${describe(error)}`)
      if (isLost(error)) end('the membership is lost')
    },
    onBug: onFatal,
    intervalMs: COMMIT_MS,
    nowMs,
  })

  const lanes = createLanes({
    batchSize,
    batchIntervalMs,
    write,
    onWritten(partition, next, count, of) {
      commits.written({ topic, partition, next, count }, of)
      session?.reader.wake()
    },
    onFatal,
    logger,
  })

  const watch = createWatch({
    topic,
    groupId,
    connections: connections.looking,
    observer: createGroupMember(connections.looking, group),
    problems,
    lanes,
    commits,
    keeping: createLooker({ connections: connections.looking, topic, kept, logger }),
    prepare,
    session: () => session,
    onChange(reason, leave) {
      mustLeave ||= leave
      end(reason)
    },
  })

  /** Joins the group and begins to read. */
  const beginSession = async (): Promise<Session> => {
    const state = await findTopic(connections.looking, topic)
    if (mustLeave) await member.leave()
    mustLeave = false
    let counted = 0
    const {
      partitions: assigned,
      isLeader,
      members,
    } = await member.join(async (names) => {
      const counts = await countPartitions(connections.looking, names)
      counted = counts.get(topic) ?? 0
      return counts
    })
    answeredMs = nowMs()
    const partitions = assigned.map(({ partition }) => partition)
    const committed = await committedOf(member, topic, partitions)
    await connections.reading.metadata([topic])
    generation++
    commits.begin(generation, ofTopic(state, committed))
    lanes.begin(partitions, generation)
    keepProblems(partitions)
    const reader = createReader({
      connections: connections.reading,
      topic,
      topicId: state.id,
      lanes: lanes.byPartition,
      from: committed,
      problems,
      onMoved: countSkipped,
      onStale: watch.soon,
      onFatal,
      logger,
    })
    reader.adopt(leadersOf(state))
    joins.inc()
    hasJoined = true
    logger.info({ partitions, members }, 'partitions assigned')
    return { topic: state, isLeader, counted, reader, over: null }
  }

  /** What was committed of this topic, not of another one that had its name. */
  const ofTopic = (state: Topic, committed: Map<number, Reached>) =>
    [...committed]
      .filter(([, { topicId }]) => topicId === null || topicId === state.id)
      .map(([partition, { offset }]) => ({ topic, partition, offset }))

  /** Those of the session before are over, but for those of partitions that are still ours. */
  const keepProblems = (partitions: number[]) =>
    problems.keep((cause) => {
      const [kind = '', which] = cause.split(' ')
      if (kind === 'partition' || kind === 'unread') return partitions.includes(Number(which))
      return kind !== 'broker' && kind !== 'commit' && kind !== 'group'
    })

  /** Tells the group again and again that we live, until the session is over. */
  const beat = async (current: Session) => {
    while (current.over === null) {
      await ended.wait(HEARTBEAT_MS)
      if (current.over !== null) return
      try {
        await member.heartbeat()
        answeredMs = nowMs()
        problems.clear('group')
      } catch (error) {
        if (isRebalancing(error)) end('the group rebalances')
        else if (isLost(error)) end('the membership is lost')
        else problems.set('group', `the group ${groupId}: ${describe(error)}`)
      }
    }
  }

  /** Finishes what is being written and commits it, before the partitions may be another member's. */
  const settle = async () => {
    await lanes.hold(SETTLE_MS)
    if (!(await commits.flush(FLUSH_MS))) logger.warn({ partitions: commits.owed }, UNCOMMITTED)
  }

  const run = async () => {
    for (let attempt = 0; !stopping; ) {
      try {
        session = await beginSession()
        attempt = 0
        await beat(session)
        if (!stopping) await settle()
      } catch (error) {
        await watch.prepareIfMissing(error)
        problems.set('group', `the group ${groupId} is not joined: ${describe(error)}`)
        await ended.wait(backoffMs(attempt++))
      }
      if (!stopping) session = null
    }
  }

  /** Decides whether records are being read, from everything that is known. */
  const assess = () => {
    const isSilent = nowMs() - answeredMs >= SILENT_MS
    const silence = `the group ${groupId} has not answered for ${SILENT_MS / 1000} s`
    const words = problems.lasting(PATIENCE_MS) ?? (isSilent ? silence : null)
    if (words !== null) condition.wrong(`Kafka: ${words}`)
    else if (problems.size === 0) condition.right()
  }

  /** Writes what was read, until it is done, the time is over, or the partitions are no longer ours. */
  const drain = async (withinMs: number) => {
    const current = session
    if (current === null || current.over !== null) return
    current.reader.stop()
    const isOver = async () => {
      while (current.over === null) await ended.wait()
    }
    await withDeadline(Promise.race([lanes.drain(), isOver()]), withinMs).catch(() => {})
  }

  return {
    start() {
      answeredMs = nowMs()
      assessing = setInterval(assess, ASSESS_MS)
      running = Promise.all([run(), watch.start()]).catch(onFatal)
    },
    check: () => condition.check() ?? (hasJoined ? null : 'Kafka: not joined yet'),
    async stop(withinMs) {
      const deadlineMs = nowMs() + withinMs
      const leftMs = (share: number) => Math.max((deadlineMs - nowMs()) * share, 1)
      stopping = true
      clearInterval(assessing)
      watch.stop()
      await drain(leftMs(DRAIN_SHARE))
      await lanes.hold(leftMs(0.3))
      if (lanes.waiting > 0)
        logger.warn({ waiting: lanes.waiting }, 'stopped with records that are not stored: Kafka keeps them')
      lanes.close()
      if (!(await commits.flush(leftMs(0.5)))) logger.warn({ partitions: commits.owed }, UNCOMMITTED)
      end('stopping')
      if (hasJoined) await withDeadline(member.leave(), Math.min(leftMs(0.5), LEAVE_MS)).catch(() => {})
      session = null
      ended.wake()
      await Promise.all(Object.values(connections).map((one) => one.close()))
      await withDeadline(running, leftMs(0.8)).catch(() => {})
    },
  }
}

const UNCOMMITTED = 'stored but not committed: published again by whoever reads on'
