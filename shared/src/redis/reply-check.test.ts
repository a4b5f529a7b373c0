// The replies of Redis are counted, in pieces of any size; what can be none is found before it is kept.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createReplyCheck } from './reply-check.js'

const BOUNDS = { bulkBytes: 1_048_576, items: 10_000 }
const REPLIES = [
  '+OK\r\n',
  '-ERR unknown command\r\n',
  ':12\r\n',
  '$5\r\nab\r\nc\r\n',
  '$0\r\n\r\n',
  '$-1\r\n',
  '*-1\r\n',
  '*0\r\n',
  '_\r\n',
  '#t\r\n',
  ',1.5\r\n',
  '(12345678901234567890\r\n',
  '=7\r\ntxt:abc\r\n',
  '!5\r\nERR x\r\n',
  '*2\r\n:100\r\n:0\r\n',
  '*4\r\n:1\r\n:0\r\n:2\r\n$9\r\nWRONGTYPE\r\n',
  '%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nmodules\r\n*1\r\n%1\r\n+a\r\n~2\r\n:1\r\n*0\r\n',
]

test('replies are counted wherever they are cut', () => {
  const list = fc.array(fc.constantFrom(...REPLIES), { maxLength: 10 })
  fc.assert(
    fc.property(list, fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 50 }), (replies, sizes) => {
      const bytes = Buffer.from(replies.join(''))
      const check = createReplyCheck(BOUNDS)
      let count = 0
      for (let at = 0, turn = 0; at < bytes.length; turn++) {
        const size = sizes[turn % sizes.length] as number
        count += check(bytes.subarray(at, at + size))
        at += size
      }
      expect(count).toBe(replies.length)
    }),
  )
})

test.each<[string, string]>([
  ['a huge string', '$536870912\r\n'],
  ['a string of more digits than a length has', '$9999999999999\r\n'],
  ['an array of a billion', '*1000000000\r\n'],
  ['a list in a list in a list', '*1\r\n'.repeat(9)],
  ['a push, since nothing is subscribed to', '>3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n'],
  ['a length that is none', '$12x\r\n'],
  ['an empty line', '\r\n'],
  ['a line that ends without a return', '+OK\n'],
  ['another protocol', 'HTTP/1.1 400 Bad Request\r\n'],
  ['an endless line', `+${'a'.repeat(70_000)}`],
])('%s is no reply', (_name, text) => {
  expect(() => createReplyCheck(BOUNDS)(Buffer.from(text))).toThrow('a reply that')
})

test('whatever bytes come, it counts or throws, and keeps no more than a line', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 500 }), (bytes) => {
      try {
        expect(createReplyCheck(BOUNDS)(Buffer.from(bytes))).toBeLessThanOrEqual(bytes.length)
      } catch (error) {
        expect((error as Error).message).toContain('a reply that')
      }
    }),
    { numRuns: 5000 },
  )
})
