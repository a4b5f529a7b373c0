// What ioredis is told about a connection, and kept from seeing. A command is sent once and on a live connection only:
// what fails is for the caller to repeat, who knows what is still wanted.
import { Redis, type RedisOptions } from 'ioredis'
import { createReplyCheck, type ReplyBounds } from './reply-check.js'

export const COMMAND_TIMEOUT_MS = 5000
const MAX_RECONNECT_MS = 1000

/** What the server is shown; `tls` holds the certificate to trust, PEM text. */
export type RedisAccess = Pick<RedisOptions, 'username' | 'password' | 'tls'>

export type ConnectionOptions = {
  access: RedisAccess
  /** What a reply to this service's commands never exceeds. */
  bounds: ReplyBounds
  /** 3 by default, where HELLO is sent; 2 needs no right to that. */
  protocol?: 2 | 3
  /** How long to wait before the next attempt at the least, in milliseconds. */
  minReconnectMs?: () => number
}

/** A connection that `connect` opens, and that opens itself again until `disconnect`. */
export function createConnection(url: string, options: ConnectionOptions): Redis {
  const { access, bounds, protocol = 3, minReconnectMs = () => 0 } = options
  const redis = new Redis(url, {
    ...access,
    protocol,
    lazyConnect: true,
    maxRetriesPerRequest: 0,
    enableOfflineQueue: false,
    enableReadyCheck: false, // it would wait on this connection until a server has loaded its data; a probe tells more
    commandTimeout: COMMAND_TIMEOUT_MS,
    connectTimeout: 5000,
    disconnectTimeout: 500,
    keepAlive: 5000,
    retryStrategy: (times) => Math.min(Math.max(times * 100, minReconnectMs()), MAX_RECONNECT_MS),
  })
  redis.on('connect', () => guard(redis, bounds))
  return redis
}

/** Ends a connection that brings what ioredis must not see; its sockets, TLS or not, hand on what arrives by `push`. */
function guard(redis: Redis, bounds: ReplyBounds): void {
  const { stream } = redis
  const push = stream.push.bind(stream)
  const check = createReplyCheck(bounds)
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
