// Reads partitions of a topic into lanes, from each broker that leads some of them, as long as the lanes have room. What
// one partition or broker cannot give holds up no other. It is given where to begin, and belongs to no group.
import type { Logger } from 'pino'
import { backoffMs } from '../backoff.js'
import { describe } from '../errors.js'
import type { Problems } from '../problems.js'
import { createSignal } from '../signal.js'
import { errorOf, type KafkaConnections } from './connections.js'
import { type FetchedPartition, type FetchedRecord, fetchRecords } from './fetch.js'
import { boundsOf, type Reached, startOf } from './topic-state.js'

const WAIT_MS = 500 // for a first record
const SHORT_WAIT_MS = 20 // while a lane is full, which is to be read from as soon as it has room
const LOOKS = 3 // at what cannot be: what was spoilt on its way is whole another time
const FETCH_BYTES = 262_144 // of a partition: a fetch becomes many times its size in objects

export type Reader = {
  /** Takes over who leads each partition; null for nobody. */
  adopt(leaders: Map<number, number | null>): void
  /** A lane has room again. */
  wake(): void
  /** The offset of the next record to read, by partition; null where it is not known yet. */
  readonly positions: ReadonlyMap<number, number | null>
  /** Whether Kafka has made us wait since we read more than a quota allows. */
  readonly isThrottled: boolean
  /** Takes nothing more, also of what is on its way. */
  stop(): void
}

/** What takes the records of a partition. */
export type ReaderLane = { readonly isFull: boolean; push(records: FetchedRecord[]): void }

export type ReaderParts = {
  connections: KafkaConnections
  topic: string
  topicId: string | null
  lanes: ReadonlyMap<number, ReaderLane>
  /** Where to begin; a partition that is not in it begins at its beginning. */
  from: ReadonlyMap<number, Reached>
  /** The least time between two fetches from a broker; 0 by default. */
  spacingMs?: number
  problems: Problems
  /**
   * Called when positions are others than reading led to: how many messages Kafka had removed before they were read; 0
   * where the topic was created again or cut.
   */
  onMoved(removed: number): void
  /** Called when it is likely that the cluster has changed. */
  onStale(): void
  onFatal(error: unknown): void
  logger: Logger
}

export function createReader(parts: ReaderParts): Reader {
  const { connections, topic, topicId, lanes, from, spacingMs = 0, problems, onMoved, onStale, onFatal, logger } = parts
  const positions = new Map<number, number | null>([...lanes.keys()].map((partition) => [partition, null]))
  /** Where each partition was read up to, for when it must be located again. */
  const before = new Map<number, Reached>(from)
  const leaders = new Map<number, number | null>()
  const doubts = new Map<number, { position: number; looks: number }>()
  const followed = new Set<number>()
  const changed = createSignal()
  const room = createSignal()
  const stopped = createSignal()
  let over = false
  let isThrottled = false

  const ledBy = (node: number) => [...leaders].filter(([, leader]) => leader === node).map(([partition]) => partition)

  /** The partition is left alone until the cluster has been looked at again. */
  const suspend = (partition: number, words: string) => {
    leaders.set(partition, null)
    problems.set(`partition ${partition}`, `${topic}/${partition}: ${words}`)
    onStale()
  }

  /** Finds out where to read the partitions whose position is not known. */
  const locate = async (node: number, partitions: number[]) => {
    const unknown = partitions.filter((partition) => positions.get(partition) === null)
    if (unknown.length === 0) return
    const removed: { partition: number; messages: number }[] = []
    const restarted: number[] = []
    for (const [partition, bounds] of await boundsOf(connections, node, topic, unknown)) {
      if (over) return
      if (bounds instanceof Error) {
        suspend(partition, describe(bounds))
        continue
      }
      const start = startOf(before.get(partition) ?? null, topicId, bounds)
      positions.set(partition, start.offset)
      if (start.skipped > 0) removed.push({ partition, messages: start.skipped })
      if (start.reason === 'recreated' || start.reason === 'shorter') restarted.push(partition)
    }
    report(removed, restarted)
  }

  const report = (removed: { partition: number; messages: number }[], restarted: number[]) => {
    if (restarted.length > 0)
      logger.warn({ topic, partitions: restarted }, 'the topic was created again or cut; reading it from its beginning')
    const messages = removed.reduce((sum, one) => sum + one.messages, 0)
    if (removed.length + restarted.length > 0) onMoved(messages)
    if (removed.length === 0) return
    logger.warn({ topic, messages, removed }, 'Kafka removed messages before they were read')
  }

  /** The records from the position on. */
  const fromPosition = (records: FetchedRecord[], position: number): FetchedRecord[] => {
    const [first] = records
    if (!first || Number(first.offset) >= position) return records
    return records.filter(({ offset }) => Number(offset) >= position)
  }

  /** Whether to look again at records that cannot be read, or lie beyond the end. */
  const isDoubtful = ({ partition, next, end, unreadable }: FetchedPartition, position: number): boolean => {
    if (unreadable.length === 0 && (next === null || next <= end)) return false
    const known = doubts.get(partition)
    const looks = known?.position === position ? known.looks + 1 : 1
    doubts.set(partition, { position, looks })
    return looks < LOOKS
  }

  const take = (found: FetchedPartition) => {
    const { partition, errorCode, records, next, unreadable } = found
    const lane = lanes.get(partition)
    const position = positions.get(partition)
    if (!lane || position === undefined || position === null) throw new Error(`${topic}/${partition} was not asked for`)
    const error = errorOf(errorCode)
    if (error?.type === 'OFFSET_OUT_OF_RANGE') {
      before.set(partition, { offset: position, topicId })
      positions.set(partition, null)
      onStale() // it may be another topic now
      return
    }
    if (error) {
      suspend(partition, describe(error))
      return
    }
    problems.clear(`partition ${partition}`)
    if (isDoubtful(found, position)) return
    if (unreadable.length > 0) logger.warn({ topic, partition, errors: unreadable }, 'a batch cannot be read')
    if (next === null) return
    positions.set(partition, Math.max(next, position))
    lane.push(fromPosition(records, position))
  }

  const readFrom = async (node: number) => {
    let attempt = 0
    while (!over) {
      const led = ledBy(node)
      if (led.length === 0) {
        problems.clear(`broker ${node}`)
        await changed.wait()
        continue
      }
      let response: Awaited<ReturnType<typeof fetchRecords>>
      const startedMs = performance.now()
      try {
        await locate(node, led)
        const wanted = ledBy(node).flatMap((partition) => {
          const offset = positions.get(partition) ?? null
          return offset === null || lanes.get(partition)?.isFull ? [] : [{ partition, offset }]
        })
        if (wanted.length === 0) {
          await room.wait(WAIT_MS)
          continue
        }
        const maxWaitMs = wanted.length < led.length ? SHORT_WAIT_MS : WAIT_MS
        response = await fetchRecords(connections, node, {
          topic,
          partitions: wanted,
          maxWaitMs,
          maxBytes: FETCH_BYTES,
        })
        problems.clear(`broker ${node}`)
        attempt = 0
      } catch (error) {
        if (over) return
        problems.set(`broker ${node}`, describe(error))
        onStale()
        await stopped.wait(backoffMs(Math.min(attempt++, 3)))
        continue
      }
      if (over) return
      for (const partition of response.partitions) take(partition)
      isThrottled = response.throttleMs > 0
      const waitMs = Math.max(response.throttleMs, startedMs + spacingMs - performance.now())
      if (waitMs > 0) await stopped.wait(waitMs)
    }
  }

  return {
    positions,
    get isThrottled() {
      return isThrottled
    },
    adopt(found) {
      for (const partition of lanes.keys()) {
        const leader = found.get(partition) ?? null
        leaders.set(partition, leader)
        if (leader === null) problems.set(`partition ${partition}`, `${topic}/${partition} has no leader`)
      }
      for (const leader of new Set(leaders.values())) {
        if (leader === null || followed.has(leader)) continue
        followed.add(leader)
        readFrom(leader).catch(onFatal)
      }
      changed.wake()
      room.wake()
    },
    wake: room.wake,
    stop() {
      over = true
      for (const signal of [changed, room, stopped]) signal.wake()
    },
  }
}
