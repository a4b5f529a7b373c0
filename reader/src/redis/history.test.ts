// Walks over a sorted set that changes between any two replies; the set itself is a model of Redis's.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Command } from './connection.js'
import { cursorText, type Entry, type Order, readCursor, readHistory } from './history.js'

type Member = { score: number; member: string }

/** ZRANGE key start end BYSCORE [REV] LIMIT skipped count WITHSCORES, as Redis answers it. */
function rangeOf(set: Map<string, number>, [, , start, end, ...options]: Command): string[] {
  const isReverse = options.includes('REV')
  const [skipped, count] = options.slice(options.indexOf('LIMIT') + 1).map(Number) as [number, number]
  const bound = (text: string) => (text === '-inf' ? -1e12 : text === '+inf' ? 1e12 : Number(text.replace('(', '')))
  const [low, high] = (isReverse ? [end, start] : [start, end]).map(String) as [string, string]
  const isIn = (score: number) =>
    (low.startsWith('(') ? score > bound(low) : score >= bound(low)) &&
    (high.startsWith('(') ? score < bound(high) : score <= bound(high))
  const inside = [...set].filter(([, score]) => isIn(score)).sort(([a, x], [b, y]) => x - y || (a < b ? -1 : 1))
  if (isReverse) inside.reverse()
  return inside.slice(skipped, skipped + count).flatMap(([member, score]) => [member, String(score)])
}

// a member holds its time: it has one score for ever
const member = fc.tuple(fc.nat(5), fc.nat(999)).map(([score, name]): Member => ({ score, member: `${score}-${name}` }))
const change = fc.record({ added: fc.array(member, { maxLength: 5 }), trimBelow: fc.nat(5) })

async function walk(set: Map<string, number>, order: Order, pageSize: number, between: () => void): Promise<Entry[]> {
  const found: Entry[] = []
  for (let cursor: string | undefined; ; ) {
    const read = async ([command]: Command[]) => {
      const reply = rangeOf(set, command as Command)
      between()
      return [reply]
    }
    const page: Entry[] = []
    const from = cursor === undefined ? undefined : (readCursor(cursor) ?? undefined)
    const all = readHistory(read, 'd', { from: null, to: null }, order, from)
    for await (const entries of all) {
      page.push(...entries)
      if (page.length > pageSize) break
    }
    found.push(...page.slice(0, pageSize))
    const last = page[pageSize - 1]
    if (page.length <= pageSize || !last) return found
    cursor = cursorText(order, last)
  }
}

test.each<Order>([
  'asc',
  'desc',
])('%s: each member once, in order, none missing that stood there throughout', async (order) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(member, { minLength: 1, maxLength: 150 }),
      fc.array(change, { maxLength: 20 }),
      fc.integer({ min: 1, max: 40 }),
      async (members, changes, pageSize) => {
        const set = new Map(members.map(({ score, member }): [string, number] => [member, score]))
        const standing = new Map(set)
        let trimmed = 0
        const found = await walk(set, order, pageSize, () => {
          const { added = [], trimBelow = 0 } = changes.shift() ?? {}
          trimmed = Math.max(trimmed, trimBelow)
          for (const one of added as Member[]) if (!set.has(one.member)) set.set(one.member, one.score)
          for (const [name, score] of set) if (score < trimmed) set.delete(name)
        })
        const names = found.map((entry) => entry.member)
        expect(new Set(names).size).toBe(names.length)
        const kept = [...standing].filter(([, score]) => score >= trimmed).map(([name]) => name)
        expect(names).toEqual(expect.arrayContaining(kept))
        const scores = found.map(({ score }) => Number(score))
        expect(scores).toEqual([...scores].sort((a, b) => (order === 'asc' ? a - b : b - a)))
      },
    ),
    { numRuns: 300 },
  )
})

test('other texts are no cursors', () => {
  const text = cursorText('asc', { member: 'm', score: '1700000000.1234559', place: 3 })
  expect(readCursor(text)).toMatchObject({ order: 'asc', score: '1700000000.1234559', place: 3 })
  for (const other of [
    '',
    'x',
    text.slice(1),
    `${text}0`,
    text.replace('a', 'b'),
    text.replace('-3-', '--'),
    'a1e5-1-0123456789ab',
  ])
    expect(readCursor(other), other).toBe(null)
})
