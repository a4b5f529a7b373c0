// Positions on the topic as text, as event ids, `after=` and `position` hold them. Pure and without Node: a page can use
// it too.
//
//     3:4711                       a record: its partition and offset
//     ~a1.3c.0.3n4~Zk3fAq          a vector: the next offset to read of partitions 0, 1, …, base 36, and which topic's
//     ~5-a1.3c.9-0~Zk3fAq          a vector of the partitions 5, 6 and 9
//     3:4711~a1.3c.0.3mw~Zk3fAq    an event's id: its record, and the vector behind it

/** By partition: the offset of the next record to read. */
export type Offsets = ReadonlyMap<number, number>
/** `topic` tells topics of one name apart; '' where it is not known. */
export type Vector = { topic: string; next: Offsets }
export type RecordPosition = { partition: number; offset: number }
/** One of the two at least is there. */
export type Position = { record: RecordPosition | null; vector: Vector | null }

const MAX_PARTITIONS = 10_000
const FORM = /^(?:(\d{1,5}):(\d{1,16}))?(?:~([0-9a-z.-]+)(?:~([A-Za-z0-9_-]{6}))?)?$/
const ITEM = /^(?:(\d{1,5})-)?([0-9a-z]{1,11})$/

/** Six characters of a topic's id, which is base64; '' where the broker does not tell it. */
export const topicTag = (id: string | null): string => (id ?? '').slice(0, 6).replaceAll('+', '-').replaceAll('/', '_')

export function encodeVector({ topic, next }: Vector): string {
  let text = '~'
  let expected = 0
  for (const [partition, offset] of [...next].sort(([a], [b]) => a - b)) {
    if (text.length > 1) text += '.'
    if (partition !== expected) text += `${partition}-`
    text += offset.toString(36)
    expected = partition + 1
  }
  return topic === '' ? text : `${text}~${topic}`
}

/** Reads any of the forms above; null for what is none of them. */
export function decodePosition(text: string): Position | null {
  const [matched, partition, offset, items, topic = ''] = FORM.exec(text) ?? []
  if (!matched) return null
  const record = partition === undefined ? null : { partition: Number(partition), offset: Number(offset) }
  if (record && !Number.isSafeInteger(record.offset)) return null
  if (items === undefined) return { record, vector: null }
  const next = decodeItems(items)
  return next && { record, vector: { topic, next } }
}

function decodeItems(items: string): Offsets | null {
  const next = new Map<number, number>()
  let expected = 0
  for (const item of items.split('.')) {
    const [, named, digits] = ITEM.exec(item) ?? []
    const partition = named === undefined ? expected : Number(named)
    const offset = digits === undefined ? Number.NaN : Number.parseInt(digits, 36)
    if (partition < expected || partition >= MAX_PARTITIONS || !Number.isSafeInteger(offset)) return null
    next.set(partition, offset)
    expected = partition + 1
  }
  return next
}
