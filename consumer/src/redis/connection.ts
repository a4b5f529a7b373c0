// What ioredis is told about a connection. A command is sent once and on a live connection only: what fails is for the
// caller to repeat, who knows what is still wanted.
import { Redis, type RedisOptions } from 'ioredis'
import { LostError } from './acceptance.js'
import { RefusedError, wordsOf } from './replies.js'
import { createReplyCheck } from './reply-check.js'

export const COMMAND_TIMEOUT_MS = 5000
const RECONNECT_MS = 500 // after a refusal: the address may lead to another server by then
const MAX_RECONNECT_MS = 1000

/** What the server is shown; `tls` holds the certificate to trust, PEM text. */
export type RedisAccess = Pick<RedisOptions, 'username' | 'password' | 'tls'>

/** @param isRefused whether Redis refused writes when last asked */
export function createConnection(url: string, access: RedisAccess, isRefused: () => boolean): Redis {
  const redis = new Redis(url, {
    ...access,
    lazyConnect: true,
    maxRetriesPerRequest: 0,
    enableOfflineQueue: false,
    enableReadyCheck: false, // it would wait on this connection until a server has loaded its data; a probe tells more
    commandTimeout: COMMAND_TIMEOUT_MS,
    connectTimeout: 5000,
    disconnectTimeout: 500,
    keepAlive: 5000,
    retryStrategy: (times) => Math.min(Math.max(times * 100, isRefused() ? RECONNECT_MS : 0), MAX_RECONNECT_MS),
  })
  redis.on('connect', () => guard(redis))
  return redis
}

/** Ends a connection that brings what ioredis must not see; its sockets, TLS or not, hand on what arrives by `push`. */
function guard(redis: Redis): void {
  const { stream } = redis
  const push = stream.push.bind(stream)
  const check = createReplyCheck()
  stream.push = (chunk: Buffer | null) => {
    if (chunk === null) return push(null)
    if (stream.destroyed) return false
    try {
      if (check(chunk) > (redis as unknown as Asked).commandQueue.length)
        throw new Error('a reply that nobody asked for')
    } catch (error) {
      stream.destroy(new Error(`Redis sent ${(error as Error).message}`))
      return false
    }
    return push(chunk)
  }
}

/** The commands that have no reply yet. */
type Asked = { commandQueue: { length: number } }

/** An error of ioredis's as one of ours: RefusedError or LostError, or itself when it is none of Redis's doing. */
export function translated(error: unknown): Error {
  if (error instanceof RefusedError || error instanceof LostError) return error
  if (!(error instanceof Error)) return new Error(String(error))
  if (error.name === 'ReplyError') return new RefusedError(wordsOf(error.message))
  if (/timed out/i.test(error.message)) return new RefusedError(`no reply within ${COMMAND_TIMEOUT_MS / 1000} s`)
  const isLoss = /Connection is closed|max retries per request|isn't writeable|aborted due to connection/i
  return isLoss.test(error.message) ? new LostError('connection lost') : error
}
