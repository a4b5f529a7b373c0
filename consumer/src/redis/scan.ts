// Goes over keys of a kind, a step at a time, so that Redis serves others in between.
import type { Redis } from 'ioredis'

const COUNT = 1000 // keys looked at in a step, about 0.3 ms

export type Scan = {
  /** The next keys that match; `isOver` when these are the last, and the next step begins again. */
  step(): Promise<{ keys: string[]; isOver: boolean }>
}

export function createScan(redis: Redis, match: string): Scan {
  let cursor = '0'
  return {
    async step() {
      const [next, keys] = await redis.scan(cursor, 'MATCH', match, 'COUNT', COUNT)
      cursor = next
      return { keys, isOver: next === '0' }
    },
  }
}
