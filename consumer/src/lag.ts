// How far the group is behind, over all partitions of the topic, whether a consumer has them or not.
import type { Bounds } from '@iot/shared/kafka/topic-state'
import { Counter, Gauge } from 'prom-client'

const lags = new Gauge({
  name: 'iot_consumer_lag_messages',
  help: 'messages of a partition that the group has not stored yet, whichever consumer reads it',
  labelNames: ['partition'],
})
const skipped = new Counter({
  name: 'iot_skipped_messages_total',
  help: 'messages that Kafka removed (retention) before they were stored',
})

/** What a partition's offset means, committed by the group; `topicId` is null where nothing tells. */
export type Committed = { offset: number; topicId: string | null }
/** Where to begin reading, and how many records before that are gone for ever. */
export type Start = {
  offset: number
  skipped: number
  reason: 'first' | 'resumed' | 'removed' | 'recreated' | 'shorter'
}

/**
 * Where reading begins, given what was read or committed before. A topic that was created again under its name begins
 * at its beginning, whatever the offset says.
 * @param before null where nothing was read or committed
 */
export function startOf(before: Committed | null, topicId: string | null, { low, high }: Bounds): Start {
  if (before === null) return { offset: low, skipped: 0, reason: 'first' }
  const isOther = before.topicId !== null && topicId !== null && before.topicId !== topicId
  if (isOther) return { offset: low, skipped: 0, reason: 'recreated' }
  if (before.offset > high) return { offset: low, skipped: 0, reason: 'shorter' }
  if (before.offset < low) return { offset: low, skipped: low - before.offset, reason: 'removed' }
  return { offset: before.offset, skipped: 0, reason: 'resumed' }
}

/** Messages of each partition that are not stored; removed ones do not count. */
export function lagsOf(bounds: Map<number, Bounds>, committed: Map<number, Committed>, topicId: string | null) {
  return new Map(
    [...bounds].map(([partition, bound]) => [
      partition,
      bound.high - startOf(committed.get(partition) ?? null, topicId, bound).offset,
    ]),
  )
}

/** Shows lags by partition; none when they are not known. */
export function showLags(found: Map<number, number>): void {
  lags.reset()
  for (const [partition, lag] of found) lags.set({ partition: String(partition) }, lag)
}

export const countSkipped = (count: number): void => skipped.inc(count)
