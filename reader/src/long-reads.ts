// Reads of many pages, gently: a bounded number is open, one page is read at a time, and after each Redis is left alone for
// as long as that took. Who stores comes first, however many read.
import { pause } from '@iot/shared/backoff'
import { Problem } from '@iot/shared/http/problem'
import type { RedisReader } from './redis/connection.js'

const MAX_OPEN = 36 // each holds a page at most, a quarter of a megabyte
const REST = 1

const BUSY = new Problem(503, 'BUSY', `${MAX_OPEN} long reads are under way already`)

export type LongReads = {
  /**
   * Begins one: its first item is there, or its problem is thrown, before anything is sent to anybody.
   * @throws {Problem} BUSY where too many are open
   */
  begin<T>(items: (read: RedisReader['read']) => AsyncGenerator<T>): Promise<AsyncIterableIterator<T>>
}

export function createLongReads({ read }: Pick<RedisReader, 'read'>, maxOpen = MAX_OPEN): LongReads {
  let open = 0
  let turn: Promise<unknown> = Promise.resolve()

  const gently: RedisReader['read'] = (commands) => {
    let startMs = 0
    const replies = turn.then(() => {
      startMs = performance.now()
      return read(commands)
    })
    const rest = () => pause(REST * (performance.now() - startMs))
    turn = replies.then(rest, () => {})
    return replies
  }

  async function* seated<T>(items: AsyncGenerator<T>): AsyncGenerator<T> {
    if (open >= maxOpen) throw BUSY
    open++
    try {
      yield* items
    } finally {
      open--
    }
  }

  return {
    async begin<T>(items: (read: RedisReader['read']) => AsyncGenerator<T>) {
      const seat = seated(items(gently))
      let first: IteratorResult<T> | null = await seat.next()
      const begun: AsyncIterableIterator<T> = {
        [Symbol.asyncIterator]: () => begun,
        next() {
          const given = first
          first = null
          return given === null ? seat.next() : Promise.resolve(given)
        },
        return: () => seat.return(undefined), // also of one that nobody has read from
      }
      return begun
    },
  }
}
