// What the calls under way hold: their bodies, bounded in bytes all together, and how many are being worked on.
import type { FastifyInstance } from 'fastify'
import { createSignal } from '../signal.js'
import { Problem } from './problem.js'

const MAX_HELD_BYTES = 32_000_000

declare module 'fastify' {
  interface FastifyRequest {
    /** How much of its body is in memory. */
    heldBytes: number
  }
}

export type Load = {
  /** Resolves when no call is being worked on any more, or after `timeoutMs`. */
  idle(timeoutMs: number): Promise<void>
}

/**
 * Takes JSON bodies as text, so that a call can pass on what was written, and counts what is under way.
 * @param maxBodyBytes of one body
 */
export function addLoad(app: FastifyInstance, maxBodyBytes: number): Load {
  const isIdle = createSignal()
  let heldBytes = 0
  let working = 0

  app.decorateRequest('heldBytes', 0)
  app.addHook('onRequest', async (request, reply) => {
    // 'close' comes when the response was sent, and when the caller went away before
    reply.raw.once('close', () => {
      heldBytes -= request.heldBytes
    })
  })
  app.addContentTypeParser('application/json', (request, payload, done) => {
    const chunks: Buffer[] = []
    const refuse = (problem: Problem) => {
      payload.off('data', take).off('end', end).off('error', fail).resume() // the rest of it is not kept
      done(problem)
    }
    const take = (chunk: Buffer) => {
      chunks.push(chunk)
      request.heldBytes += chunk.length
      heldBytes += chunk.length
      if (request.heldBytes > maxBodyBytes)
        refuse(new Problem(413, 'FST_ERR_CTP_BODY_TOO_LARGE', `The body must have at most ${maxBodyBytes} bytes`))
      else if (heldBytes > MAX_HELD_BYTES)
        refuse(new Problem(503, 'BUSY', 'Too many large calls are under way: try again'))
    }
    const end = () => done(null, Buffer.concat(chunks).toString())
    const fail = (error: Error) => done(error)
    payload.on('data', take).once('end', end).once('error', fail)
  })
  // from here on a request is complete: one that is not yet holds up no stop
  app.addHook('preValidation', async (_request, reply) => {
    working++
    reply.raw.once('close', () => {
      working--
      if (working === 0) isIdle.wake()
    })
  })

  return {
    async idle(timeoutMs) {
      if (working > 0) await isIdle.wait(timeoutMs)
    },
  }
}
