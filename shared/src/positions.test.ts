import fc from 'fast-check'
import { expect, test } from 'vitest'
import { decodePosition, encodeVector, topicTag } from './positions.js'

const offset = fc.oneof(fc.nat(100), fc.maxSafeNat())
const topic = fc.constantFrom('', 'Zk3fAq', '_-0000')
const dense = fc.array(offset, { minLength: 1, maxLength: 12 }).map((all) => new Map(all.entries()))
const sparse = fc
  .uniqueArray(fc.tuple(fc.nat(9999), offset), { minLength: 1, maxLength: 20, selector: ([partition]) => partition })
  .map((all) => new Map(all))

test('a vector comes back as it was, whatever order it is in', () => {
  fc.assert(
    fc.property(fc.oneof(dense, sparse), topic, (next, tag) => {
      const text = encodeVector({ topic: tag, next })
      expect(text).toMatch(/^[\x21-\x7e]+$/) // a header can hold it
      expect(encodeURIComponent(text)).toBe(text) // and a query
      const vector = { topic: tag, next: new Map([...next].sort(([a], [b]) => a - b)) }
      expect(decodePosition(text)).toEqual({ record: null, vector })
      expect(decodePosition(`3:4711${text}`)).toEqual({ record: { partition: 3, offset: 4711 }, vector })
    }),
  )
})

test('partitions in their order need no numbers, and six of them few bytes', () => {
  const next = new Map([361, 120, 0, 4712, 37, 193].entries())
  expect(encodeVector({ topic: 'Zk3fAq', next })).toBe('~a1.3c.0.3mw.11.5d~Zk3fAq')
  expect(
    encodeVector({
      topic: '',
      next: new Map([
        [9, 0],
        [5, 361],
        [6, 120],
      ]),
    }),
  ).toBe('~5-a1.3c.9-0')
  const many = new Map(Array.from({ length: 500 }, (_, partition) => [partition, 10 ** 9]))
  expect(encodeVector({ topic: 'Zk3fAq', next: many }).length).toBeLessThan(4096)
})

test('a record alone is the position of a state', () => {
  expect(decodePosition('3:4711')).toEqual({ record: { partition: 3, offset: 4711 }, vector: null })
})

test('nonsense is no position', () => {
  const nonsense = [
    '',
    '~',
    '3',
    '3:',
    ':4',
    '3:x',
    '~.',
    '~1.',
    '~A',
    '~1~',
    '~1~abc',
    '~5-1.4-1',
    '~10000-1',
    '3:4711 ',
  ]
  const large = [
    '~zzzzzzzzzzz',
    '3:9999999999999999',
    '~1~Zk3fAq~',
    '~-1',
    '~1-',
    '99999999:1',
    '~1\n',
    '3:4711~1~Zk3fA!',
  ]
  for (const text of [...nonsense, ...large]) expect(decodePosition(text), text).toBe(null)
  fc.assert(
    fc.property(fc.string(), (text) => {
      const found = decodePosition(text)
      if (found?.vector) expect(found.vector.next.size).toBeGreaterThan(0)
    }),
  )
})

test("a topic's tag can stand in an id", () => {
  expect(topicTag('a+b/cdEFGHIJKLMNOPQRSg==')).toBe('a-b_cd')
  expect(topicTag(null)).toBe('')
})
