// What a vector that a client brings means on the topic as it is now: where it goes on, and what it misses.
import { startOf } from '@iot/shared/kafka/topic-state'
import { topicTag, type Vector } from '@iot/shared/positions'
import { MAX_WHOLE_PARTITIONS } from './ring.js'
import type { Gap, Place } from './stream.js'
import type { Located, Tail } from './tail.js'

/** @throws when Kafka is away */
export const locatePlace = async (tail: Tail, vector: Vector): Promise<Place> => placeOf(vector, await tail.locate())

/**
 * Partitions that the vector does not have begin at their beginning, for it is older than they are. A topic that was
 * created again begins at its beginning too: the client has seen nothing of it. Pure.
 */
export function placeOf(vector: Vector, { topic, bounds, generation }: Located): Place {
  const id = topicTag(topic.id)
  const isPartial = topic.partitions.length > MAX_WHOLE_PARTITIONS
  const isOfMore = [...vector.next.keys()].some((partition) => partition >= topic.partitions.length)
  const next = new Map<number, number>()
  const partitions: Record<string, { from: number; to: number }> = {}
  let missed = 0
  let isOther = isOfMore
  for (const { partition } of topic.partitions) {
    if (isPartial && !vector.next.has(partition)) continue
    const offset = isOfMore ? 0 : (vector.next.get(partition) ?? 0)
    const bound = bounds.get(partition)
    if (!bound) {
      next.set(partition, offset) // nobody leads it: nothing is known
      continue
    }
    const start = startOf({ offset, topicId: vector.topic || null }, id || null, bound)
    next.set(partition, start.offset)
    if (start.reason === 'recreated' || start.reason === 'shorter') isOther = true
    if (start.reason !== 'removed' || isOfMore) continue
    missed += start.skipped
    partitions[partition] = { from: offset, to: start.offset - 1 }
  }
  const gaps: Gap[] = []
  if (isOther) gaps.push({ reason: 'topic_changed', missed: null })
  if (missed > 0) gaps.push({ reason: 'retention', missed, partitions })
  return { topic: id, next, gaps, generation }
}
