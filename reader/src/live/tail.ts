// The end of the topic: looked at all the time, and read into the ring from every broker while somebody listens, and a
// while after. It belongs to no group: where to begin is found by time, and what another topic of the same name, removed
// records or more partitions mean is told by the ring's generation and vectors.
import { pause } from '@iot/shared/backoff'
import { createCondition } from '@iot/shared/condition'
import { decodeMessage } from '@iot/shared/contract'
import { describe } from '@iot/shared/errors'
import { Problem } from '@iot/shared/http/problem'
import type { KafkaConnections } from '@iot/shared/kafka/connections'
import type { FetchedRecord } from '@iot/shared/kafka/fetch'
import { createReader, type Reader } from '@iot/shared/kafka/reader'
import {
  type Bounds,
  boundsOfTopic,
  findTopic,
  isMissing,
  leadersOf,
  offsetsAt,
  type Topic,
} from '@iot/shared/kafka/topic-state'
import { type Offsets, topicTag } from '@iot/shared/positions'
import { createProblems } from '@iot/shared/problems'
import { createSignal } from '@iot/shared/signal'
import type { Logger } from 'pino'
import type { Stored } from '../stored.js'
import { createRing, type Ring } from './ring.js'

const RING_BYTES = 32_000_000
const BACK_MS = 10_000 // so that those who come back after a restart find in the ring what they missed
const LINGER_MS = 30_000
const LOOK_MS = 5000
const LOOK_AGAIN_MS = 500 // after a failure
const WAKE_MS = 20 // while somebody waits for the first look
const LASTING_MS = 3000 // a leader that moves is no problem
const ASSESS_MS = 1000
const SPACING_MS = 25 // a fetch for each record would cost Kafka what the consumer costs
const GATHER_MS = 2 // who asks at the same time shares the answer

export type Tail = {
  readonly ring: Ring
  /** As it was seen last; null before. */
  readonly topic: Topic | null
  /** Reads the topic until `release`. Resolves when the ring begins. */
  hold(): Promise<void>
  release(): void
  /** The topic and where its partitions begin and end; those without a leader are missing. @throws when Kafka is away */
  locate(): Promise<Located>
  /**
   * The offsets from which on everything is later.
   * @param since Unix time in milliseconds; or `now`, or `earliest`
   * @throws {Problem} KAFKA_UNAVAILABLE where that is not known of a partition
   */
  startsAt(since: number | 'now' | 'earliest'): Promise<Offsets>
  /** It is likely that the cluster has changed. */
  soon(): void
  /** What keeps the topic, or a part of it, from being read. */
  check(): string | null
  start(): void
  stop(): Promise<void>
}
export type Located = { topic: Topic; bounds: Map<number, Bounds>; generation: number }

export type TailParts = {
  topic: string
  /** Makes connections; the tail opens some for looking, and for reading. */
  connect: () => KafkaConnections
  /** For partitions that no broker leads. */
  stored: Pick<Stored, 'of'>
  /** Called for each record of the contract's form. */
  onReading(deviceId: string, seconds: number): void
  /** There is something new in the ring. */
  onNews(): void
  onFatal(error: unknown): void
  logger: Logger
}

type Session = { id: string | null; partitions: number; reader: Reader }

// longer than other functions: a few lines each, which share the session
export function createTail(parts: TailParts): Tail {
  const { topic: name, connect, stored, onReading, onNews, onFatal, logger } = parts
  const connections = { looking: connect(), reading: connect() }
  const ring = createRing(RING_BYTES)
  const problems = createProblems(() => performance.now())
  const condition = createCondition(
    'kafka',
    { wrong: 'Kafka is not giving records; retrying', right: 'Kafka is giving records' },
    logger,
  )
  const woken = createSignal()
  const begun = createSignal()
  const ends = new Map<number, number>() // as they were known last
  let topic: Topic | null = null
  let session: Session | null = null
  let holders = 0
  let lingering: NodeJS.Timeout | undefined
  let assessing: NodeJS.Timeout | undefined
  let locating: Promise<Located> | null = null
  let running: Promise<void> = Promise.resolve()
  let over = false

  const look = async () => {
    const found = await findTopic(connections.looking, name)
    if (topic !== null && topic.id !== found.id) {
      ends.clear()
      woken.wake()
    }
    topic = found
    return found
  }

  const locateNow = async (): Promise<Located> => {
    await pause(GATHER_MS)
    locating = null // who comes from now on may know of later records
    const { generation } = ring
    const found = await look()
    const bounds = await boundsOfTopic(connections.looking, name, found)
    for (const [partition, { high }] of bounds) ends.set(partition, high)
    return { topic: found, bounds, generation }
  }
  const locate = () => {
    locating ??= locateNow()
    return locating
  }

  /** Of partitions without a leader what is known: the end that was seen last, or what the group has stored. */
  const fallback = async (partitions: number[]): Promise<Offsets> => {
    const unseen = partitions.filter((partition) => !ends.has(partition))
    const reached = await stored.of(unseen)
    return new Map(
      partitions.map((partition) => {
        const offset = ends.get(partition) ?? reached.get(partition)?.offset
        if (offset === undefined)
          throw new Problem(503, 'KAFKA_UNAVAILABLE', `No broker leads partition ${partition} of ${name}`)
        return [partition, offset]
      }),
    )
  }

  const startsAt = async (since: number | 'now' | 'earliest'): Promise<Offsets> => {
    const { topic: found, bounds } = await locate()
    const byTime = typeof since === 'number' ? await offsetsAt(connections.looking, name, found, since) : null
    const starts = new Map<number, number>()
    for (const [partition, { low, high }] of bounds)
      starts.set(partition, since === 'earliest' ? low : (byTime?.get(partition) ?? high))
    const missing = found.partitions.map(({ partition }) => partition).filter((partition) => !bounds.has(partition))
    for (const [partition, offset] of await fallback(missing)) starts.set(partition, offset)
    return starts
  }

  const take = (reader: Reader, partition: number, records: FetchedRecord[]) => {
    for (const { key, value, offset } of records) {
      const message = decodeMessage(key, value)
      if (message === null) continue
      ring.push(partition, Number(offset), message)
      onReading(message.deviceId, message.seconds)
    }
    ring.advance(partition, reader.positions.get(partition) ?? 0)
    if (records.length > 0) onNews()
  }

  /** Reads from the ring's end on. */
  const read = (found: Topic) => {
    session?.reader.stop()
    const partitions = found.partitions.map(({ partition }) => partition)
    const lane = (partition: number) => ({
      isFull: false,
      push: (records: FetchedRecord[]) => take(reader, partition, records),
    })
    const reader = createReader({
      connections: connections.reading,
      topic: name,
      topicId: found.id,
      lanes: new Map(partitions.map((partition) => [partition, lane(partition)])),
      from: new Map([...ring.ends].map(([partition, offset]) => [partition, { offset, topicId: found.id }])),
      spacingMs: SPACING_MS,
      problems,
      onMoved() {
        const known = [...reader.positions].map(([partition, at]) => [partition, at ?? ring.ends.get(partition) ?? 0])
        ring.reset(new Map(known as [number, number][]), ring.topic)
        onNews()
      },
      onStale: woken.wake,
      onFatal,
      logger,
    })
    reader.adopt(leadersOf(found))
    session = { id: found.id, partitions: partitions.length, reader }
    begun.wake()
  }

  const follow = async (found: Topic) => {
    if (session === null || session.id !== found.id || session.partitions > found.partitions.length) {
      const isOther = session !== null
      const starts = await startsAt(isOther ? 'earliest' : Date.now() - BACK_MS)
      ring.reset(starts, topicTag(found.id))
      read(found)
      onNews()
    } else if (session.partitions < found.partitions.length) {
      ring.grow(found.partitions.length)
      read(found)
    } else session.reader.adopt(leadersOf(found))
  }

  const isWaitedFor = () => holders > 0 && session === null

  const run = async () => {
    while (!over) {
      try {
        const found = await look()
        if (holders > 0 || session !== null) await follow(found)
        problems.clear('look')
      } catch (error) {
        problems.set('look', isMissing(error) ? `topic ${name}: ${describe(error)}` : describe(error))
        await pause(LOOK_AGAIN_MS)
      }
      if (!over) await pause(WAKE_MS)
      if (over) return // it may have ended while nobody waited to be woken
      if (!isWaitedFor()) await woken.wait(problems.size > 0 ? LOOK_AGAIN_MS : LOOK_MS)
    }
  }

  const end = () => {
    session?.reader.stop()
    session = null
    problems.keep((cause) => cause === 'look')
  }

  return {
    ring,
    get topic() {
      return topic
    },
    async hold() {
      clearTimeout(lingering)
      holders++
      woken.wake()
      while (session === null && !over) await begun.wait()
    },
    release() {
      if (--holders === 0) lingering = setTimeout(end, LINGER_MS)
    },
    locate,
    startsAt,
    soon: woken.wake,
    check: condition.check,
    start() {
      assessing = setInterval(() => {
        const problem = problems.lasting(LASTING_MS)
        if (problem === null) condition.right()
        else condition.wrong(problem)
      }, ASSESS_MS)
      running = run().catch(onFatal)
    },
    async stop() {
      over = true
      clearInterval(assessing)
      clearTimeout(lingering)
      end()
      woken.wake()
      begun.wake()
      await Promise.all(Object.values(connections).map((one) => one.close()))
      await running
    },
  }
}
