// What keeps a part from storing records: one place where it is entered and left, so that a standstill is always seen
// in the same three ways: in /health/ready, as one line in the log, and in a counter that an alert watches.
import type { Logger } from 'pino'
import { Counter } from 'prom-client'

/** The same words are logged again only after this long: a server that flaps does not fill the disk. */
const REPEAT_MS = 60_000
/** Other words for the same standstill are news only after this long: one cause often shows in several ways. */
const CHANGE_MS = 10_000
const REMEMBERED = 50

const standstills = new Counter({
  name: 'iot_standstills_total',
  help: 'times that a part could not go on, by what it needs: each is one entry into a problem, not one failed try',
  labelNames: ['part'],
})

export type Condition = {
  /** Enters a problem, or changes its words. Call it at every failure: only news is logged and counted. */
  wrong(problem: string, fields?: Record<string, unknown>): void
  /** Leaves the problem; said where the problem was. */
  right(): void
  /** The problem in words for /health/ready; null when there is none. */
  check(): string | null
}

/**
 * @param part names what is needed, as in /health/ready: `kafka`, `redis`, …
 * @param messages what the log says on entering a problem, and on leaving it
 * @param nowMs a monotonic clock in milliseconds
 */
export function createCondition(
  part: string,
  messages: { wrong: string; right: string },
  logger: Logger,
  nowMs = () => performance.now(),
): Condition {
  standstills.inc({ part }, 0) // so that the first one is an increase
  const loggedMs = new Map<string, number>()
  let problem: string | null = null
  let lastLogged: string | null = null // of this standstill
  let lastLoggedMs = Number.NEGATIVE_INFINITY

  const isNews = (words: string, isNew: boolean) => {
    const before = loggedMs.get(words) ?? Number.NEGATIVE_INFINITY
    return nowMs() - before >= REPEAT_MS && (isNew || nowMs() - lastLoggedMs >= CHANGE_MS)
  }

  return {
    wrong(words, fields = {}) {
      const isNew = problem === null
      if (isNew) standstills.inc({ part })
      problem = words
      if (isNew) lastLogged = null
      if (words === lastLogged || !isNews(words, isNew)) return
      if (loggedMs.size >= REMEMBERED) loggedMs.clear()
      lastLogged = words
      lastLoggedMs = nowMs()
      loggedMs.set(words, lastLoggedMs)
      logger.warn({ ...fields, error: words }, messages.wrong)
    },
    right() {
      if (lastLogged !== null) logger.info(messages.right)
      lastLogged = null
      problem = null
    },
    check: () => problem,
  }
}
