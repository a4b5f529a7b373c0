// A counter's rate over the last seconds. Pure.

const WINDOW_MS = 10_000

export type Rate = {
  /**
   * Takes what the counter shows. One that is less than before began anew: what it shows came since then.
   * @param value null where it is not known, which forgets what was before
   * @returns how much came a second; null while that is not known
   */
  add(nowMs: number, value: number | null): number | null
}

export function createRate(): Rate {
  let points: { ms: number; sum: number }[] = []
  let last = 0
  return {
    add(nowMs, value) {
      if (value === null) {
        points = []
        return null
      }
      const newest = points.at(-1)
      const came = newest ? (value >= last ? value - last : value) : 0
      last = value
      points.push({ ms: nowMs, sum: (newest?.sum ?? 0) + came })
      while (points.length > 2 && (points[1]?.ms ?? 0) <= nowMs - WINDOW_MS) points.shift()
      const [first] = points
      if (!newest || !first || nowMs <= first.ms) return null
      return Math.round(((newest.sum + came - first.sum) * 10_000) / (nowMs - first.ms)) / 10
    },
  }
}
