// Log lines that others can cause at will, collapsed: one line a minute for each kind, with how many there were.
import type { Logger } from 'pino'

const PERIOD_MS = 60_000

export type LimitedLog = {
  /**
   * Logs the first of a kind at once. Those that follow within a minute are counted, and one line at its end carries
   * the fields of the last of them.
   * @param kind names what happened; one of a few fixed words, never anything that a stranger chooses
   */
  warn(kind: string, fields: Record<string, unknown>, message: string): void
}

export function createLimitedLog(logger: Logger): LimitedLog {
  const periods = new Map<string, { count: number; fields: Record<string, unknown> }>()

  const open = (kind: string, message: string) => {
    periods.set(kind, { count: 0, fields: {} })
    setTimeout(() => {
      const { count, fields } = periods.get(kind) as { count: number; fields: Record<string, unknown> }
      periods.delete(kind)
      if (count === 0) return
      logger.warn({ ...fields, count }, message)
      open(kind, message)
    }, PERIOD_MS).unref()
  }

  return {
    warn(kind, fields, message) {
      const period = periods.get(kind)
      if (period) {
        period.count++
        period.fields = fields
        return
      }
      logger.warn(fields, message)
      open(kind, message)
    },
  }
}
