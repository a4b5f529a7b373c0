// Histories, read in pages of a quarter of a megabyte and never by an offset into the whole set, which would shift at each
// trim.
//
// Within one score Redis sorts members by their bytes. A reader stands behind one member: what follows is the rest of its
// score, then the scores behind it. Late arrivals come in front of that member or behind it, and a trim takes all of a
// score at once: so the member's place within its score only ever grows, and nothing is skipped or given twice.
import { createHash } from 'node:crypto'
import { historyKey } from '@iot/shared/contract'
import { NOT_READABLE, type RedisReader } from './connection.js'

const PAGE_CHARS = 256_000
const FIRST_MEMBERS = 16 // of a device whose sizes are not known yet
const MAX_MEMBERS = 256

export type Order = 'asc' | 'desc'
/** Unix times in seconds, `from` belongs to it, `to` does not; null is open. */
export type Range = { from: number | null; to: number | null }
/** A whole message as stored, its score as Redis writes it, and its place among the members of that score, from 1. */
export type Entry = { member: string; score: string; place: number }
/** Behind which entry a walk goes on; text on the outside. */
export type Cursor = { order: Order; score: string; place: number; hash: string }

const hashOf = (member: string) => createHash('sha256').update(member).digest('hex').slice(0, 12)

export const cursorText = (order: Order, { member, score, place }: Entry): string =>
  `${order[0]}${score}-${place}-${hashOf(member)}`

export const CURSOR = /^([ad])(\d{1,12}(?:\.\d{1,20})?)-(\d{1,9})-([0-9a-f]{12})$/

/** What `cursorText` gave; null for any other text. */
export function readCursor(text: string): Cursor | null {
  const [, letter, score, place, hash] = CURSOR.exec(text) ?? []
  if (score === undefined || hash === undefined) return null
  return { order: letter === 'a' ? 'asc' : 'desc', score, place: Number(place), hash }
}

/**
 * The entries of a range in an order, in pages; the next one is read when it is asked for.
 * @throws {Problem} NOT_READABLE where the key holds another type
 */
export async function* readHistory(
  read: RedisReader['read'],
  deviceId: string,
  range: Range,
  order: Order,
  cursor?: Cursor,
): AsyncGenerator<Entry[]> {
  const key = historyKey(deviceId)
  let count = FIRST_MEMBERS

  const zrange = async (start: string, end: string, skipped: number): Promise<Entry[]> => {
    const reverse = order === 'desc' ? ['REV'] : []
    const limit = ['LIMIT', skipped, count, 'WITHSCORES']
    const [reply] = await read([['ZRANGE', key, start, end, 'BYSCORE', ...reverse, ...limit]])
    if (!Array.isArray(reply)) throw NOT_READABLE
    return entriesOf(reply as string[], skipped)
  }

  /** What of one score follows the member that `isIt` knows, which stands at `place` or behind it. */
  async function* restOf(score: string, place: number, isIt: (member: string) => boolean): AsyncGenerator<Entry[]> {
    let isFound = isIt
    for (let skipped = Math.max(place - 1, 0); ; ) {
      const entries = await zrange(score, score, skipped)
      const at = entries.findIndex(({ member }) => isFound(member))
      const rest = at === -1 ? [] : entries.slice(at + 1)
      if (rest.length > 0) yield rest
      const last = rest.at(-1)
      if (last) isFound = (member) => member === last.member
      if (entries.length < count) return
      skipped += entries.length - 1 // the last one again, to be found
    }
  }

  const from = range.from === null ? '-inf' : String(range.from)
  const to = range.to === null ? '+inf' : `(${range.to}`
  let [start, end] = order === 'asc' ? [from, to] : [to, from]
  if (cursor && !isAhead(cursor, range)) {
    yield* restOf(cursor.score, cursor.place, (member) => hashOf(member) === cursor.hash)
    start = `(${cursor.score}`
  }
  for (;;) {
    const entries = await zrange(start, end, 0)
    const last = entries.at(-1)
    if (!last) return
    yield entries
    if (entries.length < count) return
    const chars = entries.reduce((sum, { member }) => sum + member.length, 0)
    count = Math.max(2, Math.min(2 * count, MAX_MEMBERS, Math.floor((PAGE_CHARS * entries.length) / chars)))
    yield* restOf(last.score, last.place, (member) => member === last.member)
    start = `(${last.score}`
  }
}

/** Whether a cursor is of a place in front of the range, such as that of an hour that has gone by since. */
function isAhead({ order, score }: Cursor, { from, to }: Range): boolean {
  return order === 'asc' ? Number(score) < (from ?? 0) : Number(score) >= (to ?? Number.POSITIVE_INFINITY)
}

/** @param reply members and scores in turn. @param skipped how many of the first score were not asked for */
function entriesOf(reply: string[], skipped: number): Entry[] {
  const entries: Entry[] = []
  let place = skipped
  for (let at = 0; at < reply.length; at += 2) {
    const [member = '', score = ''] = reply.slice(at, at + 2)
    place = at > 0 && score !== reply[at - 1] ? 1 : place + 1
    entries.push({ member, score, place })
  }
  return entries
}
