// An answer that is an error: Fastify's own shape, `code` is what programs look at. Thrown by hooks and calls alike.
import { STATUS_CODES } from 'node:http'
import { z } from 'zod'

const errorSchema = z
  .object({ statusCode: z.int(), code: z.string(), error: z.string(), message: z.string() })
  .meta({ id: 'Error' })

export class Problem extends Error {
  readonly statusCode: number
  readonly code: string

  constructor(statusCode: number, code: string, message: string) {
    super(message)
    this.statusCode = statusCode
    this.code = code
  }

  /** The body of the answer. */
  body(): z.infer<typeof errorSchema> {
    const { statusCode, code, message } = this
    return { statusCode, code, error: STATUS_CODES[statusCode] ?? 'Error', message }
  }
}

/** The schemas of a call's errors, with those that every call may return. */
export const errors = <Code extends number>(...codes: Code[]) =>
  Object.fromEntries([...codes, 401, 403, 421, 429, 500, 503].map((code) => [code, errorSchema])) as Record<
    Code | 401 | 403 | 421 | 429 | 500 | 503,
    typeof errorSchema
  >
