// A lane for each assigned partition, from one generation of the group to the next.
import { backoffMs } from '@iot/shared/backoff'
import { describe } from '@iot/shared/errors'
import { withDeadline } from '@iot/shared/lifecycle'
import type { Logger } from 'pino'
import { Counter, Histogram } from 'prom-client'
import type { SourceRecord } from './batch.js'
import { createLane, type Lane } from './lane.js'

const MAX_BATCH_BYTES = 1_000_000 // of keys and values: whatever BATCH_SIZE says, large messages must fit into memory
const MAX_RETRY_ATTEMPT = 3 // the store is asked again within a second

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

export type LanesParts = {
  batchSize: number
  batchIntervalMs: number
  /** Stores one batch of a partition for good; what it throws is tried again, with the same batch. */
  write: (records: SourceRecord[], partition: number) => Promise<void>
  /** A batch is stored; `next` is the offset after its last record. */
  onWritten: (partition: number, next: number, count: number, generation: number) => void
  onFatal: (error: unknown) => void
  logger: Logger
}

export type Lanes = {
  readonly byPartition: ReadonlyMap<number, Lane>
  /** Records that are not stored. */
  readonly waiting: number
  /** Empty lanes for these partitions; those of others are closed. */
  begin(partitions: number[], generation: number): void
  /** Finishes what is being written and begins nothing further; gives up after `withinMs`. */
  hold(withinMs: number): Promise<void>
  /** Writes everything that they hold. */
  drain(): Promise<unknown>
  close(): void
}

export function createLanes(parts: LanesParts): Lanes {
  const { batchSize, batchIntervalMs: intervalMs, write, onWritten, onFatal, logger } = parts
  const lanes = new Map<number, Lane>()
  const options = {
    batchSize,
    maxBytes: MAX_BATCH_BYTES,
    intervalMs,
    retryMs: (attempt: number) => backoffMs(Math.min(attempt, MAX_RETRY_ATTEMPT)),
    nowMs: () => performance.now(),
  }

  const open = (partition: number): Lane => {
    const lane = createLane(options, {
      write: (records) => write(records, partition),
      onWritten(records, generation, tookMs) {
        durations.observe(tookMs / 1000)
        sizes.observe(records.length)
        const last = records.at(-1)
        if (!last) throw new Error('an empty batch was written')
        onWritten(partition, Number(last.offset) + 1, records.length, generation)
      },
      onFailed(error) {
        failures.inc()
        // readiness, log and counter are the store's
        logger.debug({ error: describe(error), partition }, 'batch not stored; retrying')
      },
    })
    lane.done.catch(onFatal)
    return lane
  }

  return {
    byPartition: lanes,
    get waiting() {
      return [...lanes.values()].reduce((sum, lane) => sum + lane.size, 0)
    },
    begin(partitions, generation) {
      for (const [partition, lane] of lanes) {
        if (partitions.includes(partition)) continue
        lane.close()
        lanes.delete(partition)
      }
      for (const partition of partitions) {
        const lane = lanes.get(partition) ?? open(partition)
        lanes.set(partition, lane)
        lane.begin(generation)
      }
    },
    async hold(withinMs) {
      await withDeadline(Promise.all([...lanes.values()].map((lane) => lane.hold())), withinMs).catch(() => {})
    },
    drain: () => Promise.all([...lanes.values()].map((lane) => lane.drain())),
    close() {
      for (const lane of lanes.values()) lane.close()
    },
  }
}
