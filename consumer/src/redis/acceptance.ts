// Whether Redis accepts writes: the one place where a standstill is entered and left, and where the pace of tries
// meanwhile is set. No I/O here: it hears what became of writes, of probes and of the connection.
import { createCondition } from '@iot/shared/condition'
import { describe } from '@iot/shared/errors'
import type { Logger } from 'pino'
import { isFull } from './replies.js'

const LOST_MS = 2000 // a connection that is back before that is no standstill
const IDLE_MS = 5000 // without a write for so long, a probe tells whether there could be one
const TRIAL_MS = 500 // between two tries while Redis refuses, over all partitions
const CALM_MS = 2000 // a Redis that was full, and has room for one batch, may not have it for the next
const OWED_MS = 15_000 // a failed batch is tried again within this time, unless another consumer has its partition

/** The connection broke, or there is none: no word of Redis's on anything. */
export class LostError extends Error {}

export type Acceptance = {
  /** Null when Redis stored the last thing it was asked to, else why it did not. */
  check(): string | null
  /** From now on there should be a connection. */
  started(): void
  /** Call it before a write. @throws while Redis refuses, unless one more try is due: then this write is that try */
  admit(): void
  /** A batch was stored. */
  wrote(): void
  /** A batch was not stored. */
  writeFailed(error: Error): void
  /** A probe was stored. It does less than a batch, so it ends no standstill that a batch met and is still to pass. */
  probed(): void
  probeFailed(error: Error): void
  /** The connection was lost, or could not be made. */
  connectionFailed(error: Error): void
  /** Call it every second. @returns whether a probe is due */
  tick(): boolean
}

/** @param nowMs a monotonic clock in milliseconds */
export function createAcceptance(logger: Logger, nowMs = () => performance.now()): Acceptance {
  const messages = { wrong: 'Redis is not accepting writes; retrying', right: 'Redis is accepting writes again' }
  const condition = createCondition('redis', messages, logger, nowMs)
  let words = 'not connected yet'
  let failingSinceMs: number | null = null
  let isProven = false
  let isOwed = false
  let lastWriteMs = Number.NEGATIVE_INFINITY
  let lastTryMs = Number.NEGATIVE_INFINITY
  let lastTrialMs = Number.NEGATIVE_INFINITY
  let lastFullMs = Number.NEGATIVE_INFINITY

  const isLasting = () => failingSinceMs !== null && nowMs() - failingSinceMs >= LOST_MS

  const failed = (error: Error, countsAtOnce: boolean) => {
    const isFirst = failingSinceMs === null
    failingSinceMs ??= nowMs()
    if (isFull(error)) lastFullMs = nowMs()
    // what broke a connection, and what Redis said before, tells more than that there is none
    if (isFirst || !(error instanceof LostError)) {
      const latest = describe(error)
      // the same refusal in the words of another command is no news
      if (condition.check() === null || codeOf(latest) !== codeOf(words)) words = latest
    }
    if (countsAtOnce || isLasting()) condition.wrong(words)
  }

  const succeeded = () => {
    if (nowMs() - lastFullMs < CALM_MS) return
    failingSinceMs = null
    if (!isProven && condition.check() === null) logger.info('Redis is accepting writes')
    isProven = true
    condition.right()
  }

  return {
    check: () => condition.check() ?? (isProven ? null : words),
    started() {
      failingSinceMs ??= nowMs()
    },
    admit() {
      const now = nowMs()
      lastWriteMs = now
      if (condition.check() !== null) {
        if (now - lastTrialMs < TRIAL_MS) throw new Error(words)
        lastTrialMs = now
      }
      lastTryMs = now
    },
    wrote() {
      isOwed = false
      if (failingSinceMs !== null || !isProven) succeeded()
    },
    writeFailed(error) {
      isOwed = true
      failed(error, !(error instanceof LostError))
    },
    probed() {
      if (isOwed && nowMs() - lastWriteMs < OWED_MS) return
      isOwed = false
      succeeded()
    },
    probeFailed: (error) => failed(error, !(error instanceof LostError)),
    connectionFailed: (error) => failed(error, false),
    tick() {
      if (isLasting()) condition.wrong(words)
      const isDue = nowMs() - lastTryMs >= (failingSinceMs === null ? IDLE_MS : TRIAL_MS)
      if (isDue) lastTryMs = nowMs()
      return isDue
    },
  }
}

/** What a refusal begins with: `READONLY`, `OOM`, …; other words whole. */
const codeOf = (words: string): string => /^(?!ERR)[A-Z]{3,}\b/.exec(words)?.[0] ?? words
