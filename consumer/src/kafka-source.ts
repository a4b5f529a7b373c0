// The consumer's Kafka side: a membership in the group, the assigned partitions read into lanes, and commits of what
// was written.
//
// A session is one generation of the group. When it ends, what is being written is finished and committed before the
// partitions are given up, so that a rebalance repeats next to nothing. A look every few seconds sees what no request
// tells: partitions that were added, a topic that was created again, members that read another topic.
import { backoffMs } from '@iot/shared/backoff'
import { createCondition } from '@iot/shared/condition'
import { describe } from '@iot/shared/errors'
import type { KafkaConnections } from '@iot/shared/kafka/connections'
import { type Assignment, createGroupMember, isLost, isRebalancing } from '@iot/shared/kafka/group'
import type { Bounds } from '@iot/shared/kafka/topic-state'
import { withDeadline } from '@iot/shared/lifecycle'
import { createSignal } from '@iot/shared/signal'
import type { Logger } from 'pino'
import { Counter, Histogram } from 'prom-client'
import type { SourceRecord } from './batch.js'
import { committedOf, findTopic, inspectGroup, isMissing, leadersOf, measureLag, type Topic } from './cluster-look.js'
import { createCommitLog } from './commit-log.js'
import { showLags } from './lag.js'
import { createLane, type Lane } from './lane.js'
import { createProblems } from './problems.js'
import { createReader, type Reader } from './reader.js'

const SESSION_TIMEOUT_MS = 10_000 // after a crash the group waits this long before others read our partitions
const REBALANCE_TIMEOUT_MS = 30_000
const HEARTBEAT_MS = 1000 // as long as it takes to learn of a rebalance, for which all members wait
const LOOK_MS = 5000
const LOOK_AGAIN_MS = 500 // after a failure
const ASSESS_MS = 1000
const PATIENCE_MS = 3000 // a leader that moves is not worth a line
const STALLED_MS = 10_000 // without an answer of the group, whatever the cause
const UNREAD_MS = 5000 // a partition that has records and gives none for so long
const COMMIT_MS = 250
const SETTLE_MS = 4000 // for what is being written when a generation ends; with the flush less than the session timeout
const FLUSH_MS = 2000
const LEAVE_MS = 500
const MAX_RETRY_ATTEMPT = 3 // the store is asked again within a second
const MAX_BATCH_BYTES = 1_000_000 // of keys and values: whatever BATCH_SIZE says, large messages must fit into memory

const stored = new Counter({ name: 'iot_stored_messages_total', help: 'messages written and committed' })
const joins = new Counter({ name: 'iot_group_joins_total', help: 'times that the consumer group was joined' })
const failures = new Counter({ name: 'iot_batch_retries_total', help: 'batches that failed and were repeated' })
const sizes = new Histogram({
  name: 'iot_batch_messages',
  help: 'messages in a batch',
  buckets: [1, 5, 20, 50, 100, 200, 500, 1000],
})
const durations = new Histogram({
  name: 'iot_batch_duration_seconds',
  help: 'time to write one batch, repeats included',
  buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30],
})

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
  /** Stores one batch of a partition for good; what it throws is tried again, with the same batch. */
  write: (records: SourceRecord[], partition: number) => Promise<void>
  onFatal: (error: unknown) => void
  logger: Logger
}

export type KafkaSourceOptions = { topic: string; groupId: string; batchSize: number; batchIntervalMs: number }

/** One generation of the group, as this member lives it. */
type Session = {
  generation: number
  topic: Topic
  assignment: Assignment
  counted: number
  reader: Reader
  over: string | null
}

export function createKafkaSource(parts: KafkaSourceParts, options: KafkaSourceOptions): KafkaSource {
  const { connect, prepare, write, onFatal, logger } = parts
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
  const observer = createGroupMember(connections.looking, group)
  const problems = createProblems(nowMs)
  const condition = createCondition(
    'kafka',
    { wrong: 'Kafka is not giving records; retrying', right: 'Kafka is giving records' },
    logger,
  )
  const lanes = new Map<number, Lane>()
  const ended = createSignal() // a session, or all
  const lookSoon = createSignal()
  let session: Session | null = null
  let generation = 0
  let aliveMs = 0 // when the group last heard of us
  let hasJoined = false
  let mustLeave = false // to make the group rebalance
  let stopping = false
  let running: Promise<unknown> | undefined
  let assessing: NodeJS.Timeout | undefined

  const commits = createCommitLog({
    async commit(owed) {
      if (!session) throw new Error('not in the group')
      const metadata = session.topic.id ?? ''
      const offsets = owed.map(({ topic: name, partition, next }) => ({
        topic: name,
        partition,
        offset: next,
        metadata,
      }))
      return member.commit(offsets)
    },
    onCommitted(count) {
      stored.inc(count)
      problems.clear('commit')
    },
    onFailed(error) {
      logger.debug({ error: describe(error) }, 'offsets not committed; retrying')
      problems.set('commit', `offsets are not committed: ${describe(error)}`)
      if (isLost(error)) end('the membership is lost')
    },
    onBug: onFatal,
    intervalMs: COMMIT_MS,
    nowMs,
  })

  const end = (reason: string) => {
    if (!session || session.over !== null) return
    session.over = reason
    session.reader.stop()
    logger.debug({ reason }, 'session over')
    ended.wake()
  }

  const openLane = (partition: number): Lane => {
    const lane = createLane(
      {
        batchSize,
        maxBytes: MAX_BATCH_BYTES,
        intervalMs: batchIntervalMs,
        retryMs: (attempt) => backoffMs(Math.min(attempt, MAX_RETRY_ATTEMPT)),
        nowMs,
      },
      {
        write: (records) => write(records, partition),
        onWritten(records, of, tookMs) {
          durations.observe(tookMs / 1000)
          sizes.observe(records.length)
          const last = records.at(-1)
          if (!last) throw new Error('an empty batch was written')
          commits.written({ topic, partition, next: Number(last.offset) + 1, count: records.length }, of)
          session?.reader.wake()
        },
        onFailed(error) {
          failures.inc()
          // readiness, log and counter are the store's
          logger.debug({ error: describe(error), partition }, 'batch not stored; retrying')
        },
      },
    )
    lane.done.catch(onFatal)
    return lane
  }

  /** Lanes for the partitions of this generation, empty; those of other partitions are closed. */
  const beginLanes = (partitions: number[]) => {
    for (const [partition, lane] of lanes) {
      if (partitions.includes(partition)) continue
      lane.close()
      lanes.delete(partition)
    }
    for (const partition of partitions) {
      const lane = lanes.get(partition) ?? openLane(partition)
      lanes.set(partition, lane)
      lane.begin(generation)
    }
  }

  /** How many partitions each topic has that the members want, as the leader of the group must know. */
  const countPartitions = async (names: string[]): Promise<Map<string, number>> => {
    const { topics } = await connections.looking.metadata(names)
    return new Map(
      names.map((name) => {
        const partitions = topics.get(name)
        return [name, Array.isArray(partitions) ? partitions.length : 0]
      }),
    )
  }

  /** Joins the group and begins to read. */
  const beginSession = async (): Promise<Session> => {
    const state = await findTopic(connections.looking, topic)
    if (mustLeave) await member.leave()
    mustLeave = false
    let counted = 0
    const assignment = await member.join(async (names) => {
      const counts = await countPartitions(names)
      counted = counts.get(topic) ?? 0
      return counts
    })
    aliveMs = nowMs()
    generation++
    const partitions = assignment.partitions.map(({ partition }) => partition)
    const committed = await committedOf(member, topic, partitions)
    await connections.reading.metadata([topic])
    commits.begin(generation)
    beginLanes(partitions)
    problems.keep((cause) => {
      const [kind = '', which] = cause.split(' ')
      if (kind === 'partition' || kind === 'standstill') return partitions.includes(Number(which))
      return kind !== 'broker' && kind !== 'commit'
    })
    const reader = createReader({
      connections: connections.reading,
      topic,
      topicId: state.id,
      lanes,
      committed,
      problems,
      onStale: lookSoon.wake,
      onFatal,
      logger,
    })
    reader.adopt(leadersOf(state))
    joins.inc()
    hasJoined = true
    logger.info({ partitions, members: assignment.members }, 'partitions assigned')
    return { generation, topic: state, assignment, counted, reader, over: null }
  }

  /** Tells the group again and again that we live, until the session is over. */
  const beat = async (current: Session) => {
    while (current.over === null) {
      await ended.wait(HEARTBEAT_MS)
      if (current.over !== null) return
      try {
        await member.heartbeat()
        aliveMs = nowMs()
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
    await withDeadline(Promise.all([...lanes.values()].map((lane) => lane.hold())), SETTLE_MS).catch(() => {})
    if (commits.owed > 0 && !(await commits.flush(FLUSH_MS)))
      logger.warn({ partitions: commits.owed }, 'written but not committed before a rebalance: published again')
  }

  const run = async () => {
    for (let attempt = 0; !stopping; ) {
      try {
        session = await beginSession()
        problems.clear('group')
        problems.clear('topic')
        attempt = 0
        await beat(session)
        if (!stopping) await settle()
      } catch (error) {
        if (isMissing(error)) await tryToPrepare(error)
        problems.set('group', `the group ${groupId} is not joined: ${describe(error)}`)
        await ended.wait(backoffMs(attempt++))
      }
      if (!stopping) session = null
    }
  }

  const tryToPrepare = async (missing: unknown) => {
    problems.set('topic', `topic ${topic}: ${describe(missing)}`)
    await prepare().catch((error) => problems.set('topic', `topic ${topic} cannot be created: ${describe(error)}`))
  }

  /** Looks at the cluster again and again, sooner when something failed. */
  const look = async () => {
    while (!stopping) {
      const startedMs = nowMs()
      try {
        const state = await findTopic(connections.looking, topic)
        problems.clear('cluster')
        problems.clear('topic')
        if (session?.over === null) compare(session, state)
        const looked = session
        const { bounds, committed } = await measureLag(connections.looking, observer, topic, state)
        if (session !== null && session === looked && session.over === null && session.topic.id === state.id) {
          noticeStandstill(session, bounds)
          commits.confirm(
            [...bounds.keys()].map((partition) => ({
              topic,
              partition,
              offset: committed.get(partition)?.offset ?? null,
            })),
          )
        }
        await inspect(state)
        problems.clear('look')
      } catch (error) {
        showLags(new Map())
        if (isMissing(error)) await tryToPrepare(error)
        else problems.set('look', describe(error))
      }
      if (stopping) return
      await lookSoon.wait(problems.size > 0 ? LOOK_AGAIN_MS : LOOK_MS)
      const sinceMs = nowMs() - startedMs
      if (sinceMs < LOOK_AGAIN_MS) await ended.wait(LOOK_AGAIN_MS - sinceMs)
    }
  }

  /** What has changed since the session began. */
  const compare = (current: Session, state: Topic) => {
    current.reader.adopt(leadersOf(state))
    if (state.id !== current.topic.id) end('the topic was created again')
    else if (current.assignment.isLeader && state.partitions.length !== current.counted)
      end('the topic has another number of partitions')
  }

  const progress = new Map<number, { position: number | null; sinceMs: number }>()
  /** A partition that has records, is ours, has room, and gives nothing. */
  const noticeStandstill = (current: Session, bounds: Map<number, Bounds>) => {
    for (const [partition, position] of current.reader.positions) {
      const known = progress.get(partition)
      const bound = bounds.get(partition)
      const isWaiting =
        bound !== undefined && (position === null || position < bound.high) && !lanes.get(partition)?.isFull
      if (!isWaiting || known?.position !== position) progress.set(partition, { position, sinceMs: nowMs() })
      const sinceMs = progress.get(partition)?.sinceMs ?? nowMs()
      const cause = `standstill ${partition}`
      const why = current.reader.isThrottled
        ? 'a quota throttles the consumer'
        : 'nothing is read, though there is something'
      if (isWaiting && nowMs() - sinceMs >= UNREAD_MS) problems.set(cause, `${topic}/${partition}: ${why}`)
      else problems.clear(cause)
    }
  }

  let uncoveredLooks = 0
  const inspect = async (state: Topic) => {
    const finding = await inspectGroup(observer, groupId, topic, state)
    if (finding === null || session?.over !== null) return
    if (finding.misuse) problems.set('misuse', finding.misuse)
    else problems.clear('misuse')
    uncoveredLooks = finding.uncovered > 0 ? uncoveredLooks + 1 : 0
    if (uncoveredLooks < 2) return
    uncoveredLooks = 0
    mustLeave = !session.assignment.isLeader // the leader's word is enough
    end('some partitions have no member')
  }

  /** Decides whether records are being read, from everything that is known. */
  const assess = () => {
    const silentMs = nowMs() - aliveMs
    const words =
      problems.lasting(PATIENCE_MS) ??
      (silentMs < STALLED_MS ? null : `the group ${groupId} has not answered for ${Math.round(STALLED_MS / 1000)} s`)
    if (words !== null) condition.wrong(`Kafka: ${words}`)
    else if (problems.size === 0) condition.right()
  }

  return {
    start() {
      aliveMs = nowMs()
      assessing = setInterval(assess, ASSESS_MS)
      running = Promise.all([run(), look()]).catch(onFatal)
    },
    check: () => condition.check() ?? (hasJoined ? null : 'Kafka: not joined yet'),
    async stop(withinMs) {
      const deadlineMs = nowMs() + withinMs
      const leftMs = (share: number) => Math.max((deadlineMs - nowMs()) * share, 1)
      stopping = true
      clearInterval(assessing)
      const current = session
      if (current?.over === null) {
        current.reader.stop()
        const drained = Promise.all([...lanes.values()].map((lane) => lane.drain()))
        const isOver = async () => {
          while (current.over === null) await ended.wait()
        }
        await withDeadline(Promise.race([drained, isOver()]), leftMs(0.6)).catch(() => {})
      }
      const waiting = [...lanes.values()].reduce((sum, lane) => sum + lane.size, 0)
      if (waiting > 0) logger.warn({ waiting }, 'stopped with records that are not stored: Kafka keeps them')
      for (const lane of lanes.values()) lane.close()
      if (!(await commits.flush(leftMs(0.5))))
        logger.warn({ partitions: commits.owed }, 'written but not committed: published again')
      end('stopping')
      if (hasJoined) await withDeadline(member.leave(), Math.min(leftMs(0.5), LEAVE_MS)).catch(() => {})
      session = null
      for (const signal of [ended, lookSoon]) signal.wake()
      await Promise.all(Object.values(connections).map((one) => one.close()))
      await withDeadline(running ?? Promise.resolve(), leftMs(0.8)).catch(() => {})
    },
  }
}
