// The sockets that kafkajs reads from. It parses what arrives inside the socket's 'data' event: bytes that are no answer
// of Kafka's would throw there and end the process, and a length of 2 GB would be waited for in memory.
import { createRequire } from 'node:module'
import type { Socket } from 'node:net'
import type { ISocketFactory } from 'kafkajs'

const MAX_RESPONSE_BYTES = 104_857_600 // as many as Kafka takes of a request (socket.request.max.bytes)
const LENGTH_BYTES = 4

const createSocketFactory = createRequire(import.meta.url)('kafkajs/src/network/socketFactory') as () => ISocketFactory

/** Follows the lengths in a stream of answers, in pieces of any size. Returns whether they can be those of answers. */
export function createLengthCheck(): (chunk: Buffer) => boolean {
  let left = 0 // bytes of the answer under way
  let length = 0
  let lengthBytes = 0 // of the next answer's length that are there
  return (chunk) => {
    for (let at = 0; at < chunk.length; ) {
      if (left > 0) {
        const step = Math.min(left, chunk.length - at)
        left -= step
        at += step
        continue
      }
      length = length * 256 + (chunk[at++] as number)
      lengthBytes++
      if (lengthBytes < LENGTH_BYTES) continue
      if (length > MAX_RESPONSE_BYTES) return false
      left = length
      length = 0
      lengthBytes = 0
    }
    return true
  }
}

/** kafkajs's own sockets; one that brings what cannot be read is destroyed with an error, which kafkajs handles. */
export function createGuardedSocketFactory(): ISocketFactory {
  const create = createSocketFactory()
  return (args) => {
    const socket: Socket = create(args)
    const isSound = createLengthCheck()
    const on = socket.on.bind(socket) as (event: string, listener: (data: Buffer) => void) => Socket
    socket.on = ((event: string, listener: (data: Buffer) => void) => {
      if (event !== 'data') return on(event, listener)
      return on(event, (data) => {
        if (socket.destroyed) return
        try {
          if (isSound(data)) listener(data)
          else socket.destroy(new Error('the answer is none of Kafka’s: its length cannot be'))
        } catch (error) {
          socket.destroy(new Error(`the answer is none of Kafka’s: ${(error as Error).message}`))
        }
      })
    }) as Socket['on']
    return socket
  }
}
