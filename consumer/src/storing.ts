// What becomes of a batch: it is planned, written, and what cannot be read or stored becomes dead letters. When `store`
// resolves, every record of the batch is safe in one place or the other, and its offset may be committed.
import type { DeadLetter } from '@iot/shared/contract'
import type { Logger } from 'pino'
import { type DeviceWork, planBatch, type SourceRecord } from './batch.js'

const TRIES = 3 // for a device whose data is refused: somebody may be replacing its key at this moment
const LOG_PERIOD_MS = 60_000
const COUNTED_DEVICES = 10_000

/** A device whose data the sink will not take. `error` is one of a few fixed texts. */
export type Refusal = { work: DeviceWork; error: string }

/** Where the work of batches is stored. */
export type Sink = {
  /** Connects in the background, and keeps trying for as long as it takes. */
  start(): void
  /** Null when the sink is storing, else why it is not, in words for /health/ready. */
  check(): string | null
  /**
   * Stores a batch's work from one partition. When it resolves, all of it is stored for good but for the refusals that
   * it returns, and those are about the device's data, not about the sink. Repeating a write leaves the same data.
   * @throws when the sink is away or in no state to store, with nothing known of what is stored: write the batch again
   */
  write(devices: DeviceWork[], partition: number): Promise<Refusal[]>
  stop(): Promise<void>
}

/** Stores a batch for good. @throws when it is not stored: call it again with the same batch */
export type Store = (records: SourceRecord[], partition: number) => Promise<void>

/** @param deadLetter resolves when the letter is safely stored */
export function createStoring(parts: {
  sink: Sink
  deadLetter: (letter: DeadLetter) => Promise<void>
  topic: string
  logger: Logger
}): Store {
  const { sink, deadLetter, topic, logger } = parts
  const report = createRefusalReport(logger)

  return async (records, partition) => {
    const source = `${topic}/${partition}`
    const { devices, rejected } = planBatch(records, source)
    let refused = await sink.write(devices, partition)
    for (let tries = 1; refused.length > 0 && tries < TRIES; tries++) {
      const again = refused.map(({ work }) => work)
      refused = await sink.write(again, partition)
    }
    report(refused)
    for (const { work } of refused) {
      for (const { offset, value } of work.records) {
        rejected.push({ reason: 'redis_rejected', source: `${source}@${offset}`, deviceId: work.deviceId, value })
      }
    }
    await Promise.all(rejected.map(deadLetter))
  }
}

/** Logs refusals: of each error the first at once, then one line a minute with how many came since the line before. */
function createRefusalReport(logger: Logger) {
  const since = new Map<string, { devices: Set<string>; records: number }>()

  const log = (error: string, devices: Set<string>, records: number) =>
    logger.error({ error, devices: devices.size, records }, 'the sink refused data: dead-lettered')

  const again = (error: string) => {
    const count = since.get(error)
    since.delete(error)
    if (!count || count.records === 0) return
    log(error, count.devices, count.records)
    begin(error)
  }
  const begin = (error: string) => {
    since.set(error, { devices: new Set(), records: 0 })
    setTimeout(again, LOG_PERIOD_MS, error).unref()
  }

  return (refused: Refusal[]) => {
    const errors = new Set(refused.map(({ error }) => error))
    for (const error of errors) {
      const count = since.get(error) ?? { devices: new Set<string>(), records: 0 }
      for (const { work, error: its } of refused) {
        if (its !== error) continue
        if (count.devices.size < COUNTED_DEVICES) count.devices.add(work.deviceId)
        count.records += work.records.length
      }
      if (since.has(error)) continue
      log(error, count.devices, count.records)
      begin(error)
    }
  }
}
