import { once } from 'node:events'
import { createServer } from 'node:net'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createGuardedSocketFactory, createLengthCheck } from './socket.js'

const answer = (bytes: Uint8Array) => {
  const length = Buffer.alloc(4)
  length.writeUInt32BE(bytes.length)
  return Buffer.concat([length, bytes])
}

test('answers of any size in pieces of any size are sound', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 300 })), fc.integer({ min: 1, max: 50 }), (answers, size) => {
      const stream = Buffer.concat(answers.map(answer))
      const isSound = createLengthCheck()
      for (let at = 0; at < stream.length; at += size) expect(isSound(stream.subarray(at, at + size))).toBe(true)
    }),
  )
})

test('a length that no answer has is seen, also behind other answers', () => {
  const long = Buffer.from([0x7f, 0xff, 0xff, 0xff])
  expect(createLengthCheck()(long)).toBe(false)
  expect(createLengthCheck()(Buffer.concat([answer(Buffer.alloc(10)), long]))).toBe(false)
  const isSound = createLengthCheck()
  expect([...long].map((byte) => isSound(Buffer.from([byte])))).toEqual([true, true, true, false])
})

test.each([
  ['what the listener cannot read', Buffer.from([0, 0, 0, 1, 7])],
  ['a length that cannot be', Buffer.from('HTTP/1.1 400')],
])('%s destroys the socket with an error, and nothing is thrown', async (_name, bytes) => {
  const server = createServer((client) => client.on('error', () => {}).end(bytes)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const socket = createGuardedSocketFactory()({ host: '127.0.0.1', port, ssl: undefined as never, onConnect() {} })
  socket.on('data', () => {
    throw new RangeError('outside buffer bounds')
  })
  const [error] = await once(socket, 'error')
  expect(String(error)).toContain('none of Kafka')
  server.close()
})
