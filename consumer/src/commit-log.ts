// What was written and is not committed yet, by topic and partition. It is owed until Kafka took the commit, or until
// the generation of the group that it belongs to is over: then the records are read again by whoever owns the partition.
import { createSignal } from '@iot/shared/signal'

const FLUSH_PAUSE_MS = 50 // after a commit that failed while somebody waits for it

export type Owed = {
  topic: string
  partition: number
  /** The offset after the last record that was written. */
  next: number
  /** How many records the commit is about. */
  count: number
}

/** What Kafka says it has of a partition; null for nothing. */
export type Confirmed = { topic: string; partition: number; offset: number | null }

export type CommitLogOptions = {
  /** Commits in one request; returns an error for each that was refused. @throws when nothing is known of any */
  commit(owed: Owed[]): Promise<(Error | null)[]>
  onCommitted(count: number): void
  onFailed(error: unknown): void
  onBug(error: unknown): void
  /** Between two requests: the next one carries what was written meanwhile. */
  intervalMs: number
  nowMs: () => number
}

export type CommitLog = {
  readonly owed: number
  /**
   * Takes entries of this generation from now on, and drops those of earlier ones.
   * @param from what the group had committed of the partitions that are ours now: Kafka may lose that too
   */
  begin(generation: number, from?: Confirmed[]): void
  /** `next` rises with every call for a partition. An entry of an earlier generation comes too late and is dropped. */
  written(entry: Owed, generation: number): void
  /** What Kafka says it has of some partitions: what it has lost since the generation began is owed again. */
  confirm(committed: Confirmed[]): void
  /** Commits at once, again and again if it fails; resolves with whether nothing is owed any more. */
  flush(withinMs: number): Promise<boolean>
}

export function createCommitLog(options: CommitLogOptions): CommitLog {
  const { commit, onCommitted, onFailed, onBug, intervalMs, nowMs } = options
  const settled = createSignal()
  const urgent = createSignal()
  let generation = -1
  let owed = new Map<string, Owed>()
  let highest = new Map<string, number>() // written in this generation
  let before = new Map<string, number | null>() // committed before it
  let flushing = 0
  let isRunning = false

  const keyOf = ({ topic, partition }: { topic: string; partition: number }) => `${topic}/${partition}`

  const settle = (entry: Owed, from: number) => {
    onCommitted(entry.count)
    if (generation !== from) return
    const now = owed.get(keyOf(entry))
    if (!now) throw new Error(`${keyOf(entry)} was committed and is not owed`)
    if (now.next === entry.next) owed.delete(keyOf(entry))
    else now.count -= entry.count
  }

  const commitOnce = async () => {
    const from = generation
    const entries = [...owed.values()].map((entry) => ({ ...entry }))
    const results = await commit(entries).catch((error: Error) => entries.map(() => error))
    if (results.length !== entries.length) throw new Error('a commit without an answer for each of its offsets')
    const failed = results.find((result) => result !== null)
    if (failed && generation === from) onFailed(failed)
    for (const [index, entry] of entries.entries()) if (results[index] === null) settle(entry, from)
    settled.wake()
  }

  const run = async () => {
    isRunning = true
    do {
      await commitOnce()
      if (owed.size > 0 || flushing === 0) await urgent.wait(flushing > 0 ? FLUSH_PAUSE_MS : intervalMs)
    } while (owed.size > 0)
    isRunning = false
  }

  const commitSoon = () => {
    if (!isRunning) run().catch(onBug)
  }

  return {
    get owed() {
      return owed.size
    },
    begin(next, from = []) {
      if (next <= generation) throw new Error(`generation ${next} after ${generation}`)
      generation = next
      owed = new Map()
      highest = new Map()
      before = new Map(from.map((one) => [keyOf(one), one.offset]))
      settled.wake()
    },
    written(entry, of) {
      if (of < generation) return
      if (of > generation) throw new Error(`generation ${of} has not begun`)
      const key = keyOf(entry)
      const last = highest.get(key) ?? -1
      if (!Number.isSafeInteger(entry.next) || entry.next <= last) {
        throw new Error(`${key} was written up to ${entry.next} after ${last}`)
      }
      highest.set(key, entry.next)
      owed.set(key, { ...entry, count: entry.count + (owed.get(key)?.count ?? 0) })
      commitSoon()
    },
    confirm(committed) {
      for (const { topic, partition, offset } of committed) {
        const key = keyOf({ topic, partition })
        const next = highest.get(key) ?? before.get(key) ?? 0
        if (owed.has(key) || (offset ?? 0) >= next) continue
        owed.set(key, { topic, partition, next, count: 0 })
        commitSoon()
      }
    },
    async flush(withinMs) {
      const deadlineMs = nowMs() + withinMs
      flushing++
      urgent.wake()
      try {
        while (owed.size > 0 && nowMs() < deadlineMs) await settled.wait(deadlineMs - nowMs())
        return owed.size === 0
      } finally {
        flushing--
      }
    },
  }
}
