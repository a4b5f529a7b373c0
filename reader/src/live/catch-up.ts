// Brings clients that are further back than the ring to it, from what Kafka keeps: a few at a time, a piece each in turn,
// over connections of their own, since a broker serves a connection in order and the tail's requests wait.
import { pause } from '@iot/shared/backoff'
import { errorOf, type KafkaConnections } from '@iot/shared/kafka/connections'
import { type FetchedPartition, fetchRecords } from '@iot/shared/kafka/fetch'
import { partitionsByLeader } from '@iot/shared/kafka/topic-state'
import { locatePlace } from './place.js'
import type { Stream } from './stream.js'
import type { Tail } from './tail.js'

const AT_ONCE = 8
const TURN_BYTES = 262_144 // of a client at a time, over all partitions; a larger first batch still comes
const IDLE_MS = 100 // where Kafka had nothing, or no answer

export type CatchUp = {
  /** Hands it what it lacks, as long as it takes it. */
  add(stream: Stream): void
  remove(stream: Stream): void
  stop(): Promise<void>
}

/** @param onFilled called after each turn of a client */
export function createCatchUp(
  connections: KafkaConnections,
  topic: string,
  tail: Tail,
  onFilled: (stream: Stream) => void,
): CatchUp {
  const waiting = new Set<Stream>()
  const active = new Set<Stream>()
  let over = false

  /** @returns whether it got on */
  const take = (stream: Stream, { partition, errorCode, records, next }: FetchedPartition): boolean => {
    const error = errorOf(errorCode)
    if (error === null) return next !== null && stream.fill(partition, records, next)
    tail.soon() // the leader has moved, or the topic is another one
    return false
  }

  /** @returns whether to go on at once */
  const turn = async (stream: Stream): Promise<boolean> => {
    if (stream.isLost) {
      stream.place(await locatePlace(tail, stream.vector))
      return true
    }
    const wanted = stream.wanted()
    const [found] = [...(tail.topic ? partitionsByLeader(tail.topic) : [])]
      .map(([leader, led]) => ({ leader, partitions: led.filter((partition) => wanted.has(partition)) }))
      .filter(({ partitions }) => partitions.length > 0)
      .sort(() => Math.random() - 0.5)
    if (!found) return false
    const { throttleMs, partitions } = await fetchRecords(connections, found.leader, {
      topic,
      partitions: found.partitions.map((partition) => ({ partition, offset: wanted.get(partition) ?? 0 })),
      maxWaitMs: 0,
      maxBytes: Math.ceil(TURN_BYTES / found.partitions.length),
    })
    if (throttleMs > 0) await pause(throttleMs)
    if (!active.has(stream)) return false // it is gone
    const isGone = partitions.some(({ errorCode }) => errorOf(errorCode)?.type === 'OFFSET_OUT_OF_RANGE')
    if (isGone) stream.place(await locatePlace(tail, stream.vector))
    return partitions.map((one) => (isGone && one.errorCode !== 0 ? true : take(stream, one))).includes(true)
  }

  const work = async (stream: Stream) => {
    const gotOn = await turn(stream).catch(() => {
      tail.soon()
      return false
    })
    if (active.has(stream)) onFilled(stream)
    if (!gotOn && stream.isBehind && !stream.isFull) await pause(IDLE_MS)
    const goesOn = active.delete(stream) && stream.isBehind && !stream.isFull
    if (goesOn) waiting.add(stream)
    begin()
  }

  const begin = () => {
    for (const stream of waiting) {
      if (over || active.size >= AT_ONCE) return
      waiting.delete(stream)
      active.add(stream)
      void work(stream)
    }
  }

  return {
    add(stream) {
      if (active.has(stream)) return
      waiting.add(stream)
      begin()
    },
    remove(stream) {
      waiting.delete(stream)
      active.delete(stream)
    },
    async stop() {
      over = true
      waiting.clear()
      active.clear()
      await connections.close()
    },
  }
}
