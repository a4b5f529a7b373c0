// The consumer's connections to Redis, and what their errors mean to it.
import { COMMAND_TIMEOUT_MS, createConnection, type RedisAccess } from '@iot/shared/redis/connection'
import type { Redis } from 'ioredis'
import { LostError } from './acceptance.js'
import { RefusedError, wordsOf } from './replies.js'

const RECONNECT_MS = 500 // after a refusal: the address may lead to another server by then
// INFO, the longest reply, has some 10 KB; HELLO tells of modules, a script of each device that it refuses
const BOUNDS = { bulkBytes: 1_048_576, items: 10_000 }

/** @param isRefused whether Redis refused writes when last asked */
export function createWriter(url: string, access: RedisAccess, isRefused: () => boolean): Redis {
  return createConnection(url, { access, bounds: BOUNDS, minReconnectMs: () => (isRefused() ? RECONNECT_MS : 0) })
}

/** An error of ioredis's as one of ours: RefusedError or LostError, or itself when it is none of Redis's doing. */
export function translated(error: unknown): Error {
  if (error instanceof RefusedError || error instanceof LostError) return error
  if (!(error instanceof Error)) return new Error(String(error))
  if (error.name === 'ReplyError') return new RefusedError(wordsOf(error.message))
  if (/timed out/i.test(error.message)) return new RefusedError(`no reply within ${COMMAND_TIMEOUT_MS / 1000} s`)
  const isLoss = /Connection is closed|max retries per request|isn't writeable|aborted due to connection/i
  return isLoss.test(error.message) ? new LostError('connection lost') : error
}
