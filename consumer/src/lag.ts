// How far the group is behind, over all partitions of the topic, whether a consumer has them or not.
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

/** Shows lags by partition; none when they are not known. */
export function showLags(found: Map<number, number>): void {
  lags.reset()
  for (const [partition, lag] of found) lags.set({ partition: String(partition) }, lag)
}

export const countSkipped = (count: number): void => skipped.inc(count)
