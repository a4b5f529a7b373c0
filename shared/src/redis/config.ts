// What a service that talks to Redis is configured by.
import { z } from 'zod'
import { given, isLoopback, type Need, pemFile, url } from '../config.js'

export const redisSchema = {
  REDIS_URL: url('redis://127.0.0.1:6379', ['redis', 'rediss']),
  REDIS_USERNAME: z.string().optional(),
  REDIS_PASSWORD: z.string().optional(),
  REDIS_CA_FILE: pemFile(),
}
export type RedisConfig = z.output<z.ZodObject<typeof redisSchema>>

export const redisNeeds: Need[] = [['REDIS_CA_FILE', 'REDIS_URL', ['rediss://']]]

/** What a connection to Redis shows, of what is configured. */
export const redisAccess = (config: RedisConfig) =>
  given({
    username: config.REDIS_USERNAME,
    password: config.REDIS_PASSWORD,
    tls: config.REDIS_CA_FILE === undefined ? undefined : { ca: config.REDIS_CA_FILE },
  })

/** What whoever configured it should know, a line each. */
export function redisWarnings(config: RedisConfig): string[] {
  const { protocol, hostname, password } = new URL(config.REDIS_URL)
  const hasPassword = config.REDIS_PASSWORD !== undefined || password !== ''
  const isClear = protocol === 'redis:' && !isLoopback(hostname)
  return hasPassword && isClear ? ['REDIS_PASSWORD crosses the network in the clear: use rediss://'] : []
}
