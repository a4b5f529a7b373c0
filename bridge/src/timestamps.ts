// The time of records: Unix time, whole seconds, or with six decimals that rise with every record.

const PER_SECOND = 1_000_000

/**
 * Returns what gives each record its time, as it is written into it. With `us` no two are equal and each is later than
 * the one before, whatever the clock does meanwhile: the order of times is the order of arrival.
 * @param nowMs Unix time in milliseconds
 */
export function createTimestamps(precision: 's' | 'us', nowMs = Date.now): () => string {
  if (precision === 's') return () => String(Math.floor(nowMs() / 1000))
  let last = 0
  return () => {
    last = Math.max(nowMs() * 1000, last + 1)
    return `${Math.floor(last / PER_SECOND)}.${String(last % PER_SECOND).padStart(6, '0')}`
  }
}
