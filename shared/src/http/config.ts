// What every REST API is configured by: who may call it, how often, under which names.
import { isIP } from 'node:net'
import { z } from 'zod'
import { ConfigError, integer, isLoopback, list } from '../config.js'
import type { ReadKey } from './access.js'

/** An IP address, or a range of them such as 10.0.0.0/8. */
function isAddress(text: string): boolean {
  const [address = '', bits, ...more] = text.split('/')
  const version = isIP(address)
  if (version === 0 || more.length > 0) return false
  return bits === undefined || (/^\d+$/.test(bits) && Number(bits) >= 1 && Number(bits) <= (version === 4 ? 32 : 128))
}

const keyList = (text: string) => list(text.replaceAll('\n', ',')) // in a file one key a line

/** KEY or KEY:PREFIX. */
function readKeyOf(text: string): ReadKey {
  const [key = '', ...prefix] = text.split(':')
  return { key, prefix: prefix.join(':') }
}

function checkKeys(keys: string[], context: z.RefinementCtx): void {
  const wrong = (message: string) => context.addIssue({ code: 'custom', message })
  if (keys.length === 0) wrong('must have a key')
  if (keys.some((key) => key.length < 16)) wrong('each key must have 16 characters or more')
  if (keys.some((key) => !/^[\x21-\x7e]+$/.test(key))) wrong('a key must be of visible ASCII characters')
  if (new Set(keys).size < keys.length) wrong('each key must stand once')
}

export const apiSchema = {
  API_KEY: z
    .string()
    .transform(keyList)
    .superRefine((keys, context) => checkKeys(keys, context))
    .optional(),
  API_READ_KEY: z
    .string()
    .transform((text) => keyList(text).map(readKeyOf))
    .superRefine((keys, context) =>
      checkKeys(
        keys.map(({ key }) => key),
        context,
      ),
    )
    .optional(),
  API_AUTH: z.enum(['key', 'none']).default('key'),
  API_RATE_LIMIT: integer(1000, 1, 1_000_000),
  API_TRUST_PROXY: z
    .string()
    .default('false')
    .transform((text) => (text === 'true' || text === 'false' ? text === 'true' : list(text)))
    .refine(
      (value) => !Array.isArray(value) || value.every(isAddress),
      'must be true, false, or IP addresses and ranges with commas',
    ),
  API_ALLOWED_HOSTS: z
    .string()
    .transform(list)
    .refine(
      (names) => names.every((name) => /^[^\s:/*]+$/.test(name) || isIP(name) === 6),
      'must be host names without ports, with commas',
    )
    .optional(),
}
export type ApiConfig = z.output<z.ZodObject<typeof apiSchema>>

/** What the HTTP server takes of it. */
export const apiOptions = (config: ApiConfig) => ({
  keys: config.API_KEY ?? [],
  readKeys: config.API_READ_KEY ?? [],
  allowedHosts: config.API_ALLOWED_HOSTS ?? [],
  callsPerSecond: config.API_RATE_LIMIT,
  trustProxy: config.API_TRUST_PROXY,
})

type Keys = Pick<ApiConfig, 'API_KEY' | 'API_READ_KEY'>
const isOpen = ({ API_KEY, API_READ_KEY }: Keys, host: string) => !API_KEY && !API_READ_KEY && !isLoopback(host)

/**
 * Refuses an API that strangers could reach without a key.
 * @param variable the name of the variable that `host` is from
 * @throws {ConfigError}
 */
export function checkApiAccess(config: Keys & Pick<ApiConfig, 'API_AUTH'>, variable: string, host: string): void {
  if (config.API_AUTH === 'none' || !isOpen(config, host)) return
  throw new ConfigError([`API_KEY: is needed, since ${variable} is ${host}; API_AUTH=none opens it to everybody`])
}

/** What whoever configured it should know, a line each. */
export function apiWarnings(config: ApiConfig, host: string): string[] {
  return isOpen(config, host) ? [`everybody who reaches the API on ${host} may command devices: no API_KEY is set`] : []
}
