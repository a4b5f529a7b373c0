// The one connection to Redis, which only reads. What Redis does not answer becomes a problem with a code; the connection
// is made anew by itself, and while nobody reads a look twice a second tells whether Redis is there.
import { createCondition } from '@iot/shared/condition'
import { lastStateKey } from '@iot/shared/contract'
import { describe } from '@iot/shared/errors'
import type { Check } from '@iot/shared/health'
import { Problem } from '@iot/shared/http/problem'
import { COMMAND_TIMEOUT_MS, createConnection, type RedisAccess } from '@iot/shared/redis/connection'
import type { Logger } from 'pino'

const LOOK_MS = 500
// a message may have 100 MB (MAX_PAYLOAD_BYTES); MAX_MEMBERS of a history come with a score each
const BOUNDS = { bulkBytes: 134_217_728, items: 100_000 }

const AWAY = new Problem(503, 'REDIS_UNAVAILABLE', 'Redis does not answer')
export const NOT_READABLE = new Problem(500, 'NOT_READABLE', 'Redis holds something else under a key of this device')

export type Command = [name: string, ...args: (string | number)[]]
/** What Redis replied; an Error where it says that the key holds another type. */
export type Reply = unknown

export type RedisReader = {
  /**
   * Sends the commands in one write, and returns their replies in that order.
   * @throws {Problem} 503 or 504 when any of them was not answered
   */
  read(commands: Command[]): Promise<Reply[]>
  start(): void
  check: Check
  stop(): void
}

/** @param options.access what the connection shows */
export function createRedisReader(options: { url: string; access: RedisAccess }, logger: Logger): RedisReader {
  const messages = { wrong: 'Redis does not answer; retrying', right: 'Redis answers again' }
  const condition = createCondition('redis', messages, logger)
  const { url, access } = options
  const redis = createConnection(url, { access, bounds: BOUNDS, protocol: 2 }) // HELLO needs more rights than reading
  let ticker: NodeJS.Timeout | undefined
  let isLooking = false
  let isProven = false

  const check = () => condition.check() ?? (isProven ? null : 'not connected yet')

  const failed = (error: unknown): Problem => {
    const words = describe(error)
    condition.wrong(words)
    if (!/timed out/i.test(words)) return AWAY
    redis.disconnect(true) // another connection may reach a server that answers
    return new Problem(504, 'REDIS_TIMEOUT', `Redis gave no reply within ${COMMAND_TIMEOUT_MS / 1000} s`)
  }
  redis.on('error', failed)

  const send = async (commands: Command[]): Promise<Reply[]> => {
    const { stream } = redis
    if (redis.status !== 'ready') throw failed(new Error(check() ?? 'not connected'))
    stream.cork()
    const sent = commands.map(([name, ...args]) => redis.call(name, ...args))
    stream.uncork()
    const replies = await Promise.allSettled(sent)
    const lost = replies.find((reply) => reply.status === 'rejected' && !isOtherType(reply.reason))
    if (lost?.status === 'rejected') throw failed(lost.reason)
    isProven = true
    condition.right()
    return replies.map((reply) => (reply.status === 'fulfilled' ? reply.value : reply.reason))
  }

  const look = async () => {
    if (isLooking) return
    isLooking = true
    await send([['EXISTS', lastStateKey('')]]).catch(() => {})
    isLooking = false
  }

  return {
    async read(commands) {
      if (check() !== null) throw AWAY // a look will tell when it is back: nobody else waits for it meanwhile
      return send(commands)
    },
    start() {
      redis.connect().catch(() => {}) // heard by 'error', repeated by retryStrategy
      redis.on('ready', () => void look())
      ticker = setInterval(() => void look(), LOOK_MS)
    },
    check,
    stop() {
      clearInterval(ticker)
      redis.disconnect()
    },
  }
}

const isOtherType = (error: unknown) => error instanceof Error && error.message.startsWith('WRONGTYPE')
