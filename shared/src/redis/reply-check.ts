// Follows the replies in what Redis sends (RESP2 and RESP3). ioredis keeps a reply whole before anybody sees it, however
// long it says it is, and ends the process where it gets one that nobody asked for. Pure.

const MAX_LINE_BYTES = 65_536
const MAX_DEPTH = 8
const LINE_FEED = 10
const BULKS = '$=!'
const LISTS = '*%~'
const LINES = '+-:,#_('

/** The longest string and the longest list that a reply may hold. */
export type ReplyBounds = { bulkBytes: number; items: number }

/**
 * Returns a function that takes what arrives, in pieces of any size, and returns how many replies end in it.
 * @throws where it can be no reply to what we ask: nothing more may be read from the connection
 */
export function createReplyCheck(bounds: ReplyBounds): (chunk: Buffer) => number {
  const open: number[] = [] // of the lists under way, from the outermost: how many items are to come
  let bulkBytes = 0 // of the string under way, its end included: how many are to come
  let line = ''

  /** A value has ended, and with it all lists whose last item it is. Returns whether that was the whole reply. */
  const ended = (): boolean => {
    while (open.length > 0) {
      const left = (open.pop() as number) - 1
      if (left > 0) {
        open.push(left)
        return false
      }
    }
    return true
  }
  const begun = (head: string): boolean => {
    const kind = head.charAt(0)
    if (LINES.includes(kind) && kind !== '') return ended()
    const count = /^-1$|^\d{1,9}$/.test(head.slice(1)) ? Number(head.slice(1)) : Number.NaN
    if (BULKS.includes(kind) && count <= bounds.bulkBytes) {
      if (count < 0) return ended()
      bulkBytes = count + 2
      return false
    }
    if (LISTS.includes(kind) && count <= bounds.items && open.length < MAX_DEPTH) {
      if (count <= 0) return ended()
      open.push(kind === '%' ? 2 * count : count)
      return false
    }
    throw new Error(`a reply that begins with ${JSON.stringify(head.slice(0, 20))}`)
  }

  return (chunk) => {
    let replies = 0
    for (let at = 0; at < chunk.length; ) {
      if (bulkBytes > 0) {
        const step = Math.min(bulkBytes, chunk.length - at)
        at += step
        bulkBytes -= step
        if (bulkBytes === 0 && ended()) replies++
        continue
      }
      const end = chunk.indexOf(LINE_FEED, at)
      line += chunk.toString('latin1', at, end === -1 ? chunk.length : end)
      if (line.length > MAX_LINE_BYTES) throw new Error('a reply that is one endless line')
      if (end === -1) return replies
      at = end + 1
      const head = line
      line = ''
      if (!head.endsWith('\r')) throw new Error(`a reply that begins with ${JSON.stringify(head.slice(0, 20))}`)
      if (begun(head.slice(0, -1))) replies++
    }
    return replies
  }
}
