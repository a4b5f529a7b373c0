// What calls answer that give a page as JSON, or everything as lines.
import { Readable } from 'node:stream'
import type { FastifyReply } from 'fastify'
import { z } from 'zod'
import { CONTENT_TYPES, type Format } from '../formats.js'

export const pageOrLines = (page: z.ZodType) => ({
  description: 'A page, or lines. An answer that fails after it began ends with its connection',
  content: {
    'application/json': { schema: page },
    'application/x-ndjson': { schema: z.string() },
    'text/csv': { schema: z.string() },
  },
})

/** Sends pieces of an answer as fast as the caller takes them. */
export function sendPieces(reply: FastifyReply, format: Format, pieces: AsyncIterable<string>) {
  void reply.header('cache-control', 'no-store').type(CONTENT_TYPES[format])
  return reply.send(Readable.from(pieces, { highWaterMark: 1 })) as never
}
