// Where a growing amount is heading, from what it was over some time. Pure.

export type Trend = {
  add(atSeconds: number, value: number): void
  /** When it will reach `bound` if it goes on so; 0 when it has, null when it does not grow, or is not known long enough. */
  secondsUntil(bound: number): number | null
  clear(): void
}

const LEAST_S = 60 // before that a trend says nothing

/** @param windowSeconds how far back it looks */
export function createTrend(windowSeconds: number): Trend {
  let points: [at: number, value: number][] = []

  /** Of the line with the least squares. */
  const slope = (): number => {
    const mean = (of: 0 | 1) => points.reduce((sum, point) => sum + point[of], 0) / points.length
    const [at, value] = [mean(0), mean(1)]
    let [above, below] = [0, 0]
    for (const point of points) {
      above += (point[0] - at) * (point[1] - value)
      below += (point[0] - at) ** 2
    }
    return above / below
  }

  return {
    add(at, value) {
      points.push([at, value])
      points = points.filter(([when]) => when >= at - windowSeconds)
    },
    secondsUntil(bound) {
      const [first, last] = [points[0], points.at(-1)]
      if (!first || !last) return null
      if (last[1] >= bound) return 0
      if (last[0] - first[0] < LEAST_S) return null
      const growth = slope()
      return growth > 0 ? (bound - last[1]) / growth : null
    },
    clear() {
      points = []
    },
  }
}
