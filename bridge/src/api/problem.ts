// An answer that is an error: Fastify's own shape, `code` is what programs look at.
import type { FastifyReply } from 'fastify'
import { z } from 'zod'

export const errorSchema = z
  .object({ statusCode: z.int(), code: z.string(), error: z.string(), message: z.string() })
  .meta({ id: 'Error' })

export type Problem = z.infer<typeof errorSchema>

const REASONS: Record<number, string> = {
  400: 'Bad Request',
  401: 'Unauthorized',
  404: 'Not Found',
  405: 'Method Not Allowed',
  409: 'Conflict',
  413: 'Content Too Large',
  415: 'Unsupported Media Type',
  421: 'Misdirected Request',
  429: 'Too Many Requests',
  500: 'Internal Server Error',
  502: 'Bad Gateway',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
}

/** The body of an error. */
export const problem = (statusCode: number, code: string, message: string): Problem => ({
  statusCode,
  code,
  error: REASONS[statusCode] ?? 'Error',
  message,
})

export const sendProblem = (reply: FastifyReply, body: Problem) => reply.code(body.statusCode).send(body)

/** The schemas of a call's errors, with those that every call may return. */
export const errors = <Code extends number>(...codes: Code[]) =>
  Object.fromEntries([...codes, 401, 421, 429, 500].map((code) => [code, errorSchema])) as Record<
    Code | 401 | 421 | 429 | 500,
    typeof errorSchema
  >
