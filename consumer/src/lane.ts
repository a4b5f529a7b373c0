// The records of one partition on their way to the store: collected by count, bytes and time, written one batch at a
// time, so that a device's order holds. A batch that is not stored is written again until it is, or until the lane is
// held, begun anew or closed; then its records are whoever's the partition is next.
import { createSignal } from '@iot/shared/signal'
import type { SourceRecord } from './batch.js'

export type LaneOptions = {
  batchSize: number
  /** Of keys and values in a batch; one larger record is a batch of its own. */
  maxBytes: number
  /** How long the oldest record may wait for its batch to fill, in milliseconds; 0 writes whatever there is. */
  intervalMs: number
  retryMs: (attempt: number) => number
  /** A monotonic clock in milliseconds. */
  nowMs: () => number
}

export type LaneEvents = {
  /** Resolves when the batch is stored for good. */
  write(records: SourceRecord[]): Promise<void>
  /** Called once for each batch that was stored in the lane's present generation, in order. */
  onWritten(records: SourceRecord[], generation: number, tookMs: number): void
  onFailed(error: unknown): void
}

export type Lane = {
  readonly size: number
  /** Whether it holds a batch to be written and one more: then Kafka keeps the rest. */
  readonly isFull: boolean
  push(records: SourceRecord[]): void
  /** Forgets what it holds and collects again; what is still being written belongs to no generation. */
  begin(generation: number): void
  /** Begins no further batch and gives up one that fails; resolves when nothing is being written. */
  hold(): Promise<void>
  /** Takes nothing more and writes what it holds without waiting; resolves when that is done. */
  drain(): Promise<void>
  /** Forgets what it holds, for good. */
  close(): void
  /** Resolves after `close`; rejects on a bug. */
  readonly done: Promise<void>
}

const sizeOf = ({ key, value }: SourceRecord): number => (key?.length ?? 0) + (value?.length ?? 0)

export function createLane(options: LaneOptions, { write, onWritten, onFailed }: LaneEvents): Lane {
  const { batchSize, maxBytes, intervalMs, retryMs, nowMs } = options
  const changed = createSignal()
  let state: 'collecting' | 'held' | 'draining' | 'closed' = 'held'
  let generation = -1
  let records: SourceRecord[] = []
  let arrivedMs: number[] = [] // of each record
  let bytes = 0
  let isWriting = false

  const enter = (next: typeof state) => {
    if (state === 'closed') throw new Error(`a closed lane is to be ${next}`)
    state = next
    changed.wake()
  }

  const forget = () => {
    records = []
    arrivedMs = []
    bytes = 0
  }

  /** How long until a batch is to be written; 0 for now. */
  const waitMs = (): number => {
    if (state === 'held' || records.length === 0) return Number.POSITIVE_INFINITY
    if (state === 'draining' || records.length >= batchSize || bytes >= maxBytes) return 0
    return Math.max((arrivedMs[0] as number) + intervalMs - nowMs(), 0)
  }

  /** The records at the head that make a batch, one at least. */
  const take = (): { batch: SourceRecord[]; batchBytes: number } => {
    let count = 0
    let batchBytes = 0
    for (const record of records) {
      const size = sizeOf(record)
      if (count > 0 && (count === batchSize || batchBytes + size > maxBytes)) break
      count++
      batchBytes += size
    }
    return { batch: records.slice(0, count), batchBytes }
  }

  const isOver = (from: number) => generation !== from || state === 'held' || state === 'closed'

  /** Whether the batch was stored, and still counts: not when its generation or the lane ended meanwhile. */
  const writeUntilStored = async (batch: SourceRecord[], from: number): Promise<boolean> => {
    for (let attempt = 0; ; attempt++) {
      isWriting = true
      try {
        await write(batch)
        return generation === from && state !== 'closed'
      } catch (error) {
        onFailed(error)
      }
      isWriting = false
      changed.wake()
      if (isOver(from)) return false
      await changed.wait(retryMs(attempt))
      if (isOver(from)) return false
    }
  }

  const writeBatch = async () => {
    const from = generation
    const startedMs = nowMs()
    const { batch, batchBytes } = take()
    if (await writeUntilStored(batch, from)) {
      records = records.slice(batch.length)
      arrivedMs = arrivedMs.slice(batch.length)
      bytes -= batchBytes
      onWritten(batch, from, nowMs() - startedMs)
    }
    isWriting = false // not before it was told: whoever waits for it commits then
    changed.wake()
  }

  const run = async () => {
    while (state !== 'closed') {
      const ms = waitMs()
      if (ms > 0) await changed.wait(ms)
      else await writeBatch()
    }
  }

  return {
    get size() {
      return records.length
    },
    get isFull() {
      return records.length >= 2 * batchSize || bytes >= 2 * maxBytes
    },
    push(more) {
      if (state !== 'collecting') throw new Error(`a lane that is ${state} takes no records`)
      if (more.length === 0) return
      const wasDue = waitMs() === 0
      const now = nowMs()
      for (const record of more) {
        records.push(record)
        arrivedMs.push(now)
        bytes += sizeOf(record)
      }
      if (!wasDue) changed.wake()
    },
    begin(next) {
      if (next <= generation) throw new Error(`generation ${next} after ${generation}`)
      generation = next
      forget()
      enter('collecting')
    },
    async hold() {
      enter('held')
      while (isWriting) await changed.wait()
    },
    async drain() {
      enter('draining')
      while (records.length > 0 && state === 'draining') await changed.wait()
    },
    close() {
      if (state === 'closed') return
      forget()
      enter('closed')
    },
    done: run(),
  }
}
