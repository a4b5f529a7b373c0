// Configuration from environment variables through a zod schema: all mistakes at once, one clear line for each, and no
// secret in it.
import { readFileSync } from 'node:fs'
import { createSecureContext } from 'node:tls'
import { z } from 'zod'
import { unknownVariables } from './variables.js'

/** A whole number within bounds, from its decimal text. */
export const wholeNumber = (min: number, max: number) =>
  z
    .string()
    .regex(/^\d+$/, 'must be a whole number')
    .transform(Number)
    .pipe(z.number().min(min, `must be at least ${min}`).max(max, `must be at most ${max}`))

/** The same with a default. */
export const integer = (fallback: number, min: number, max: number) => wholeNumber(min, max).default(fallback)

const read = (path: string): { text: string } | { problem: string } => {
  try {
    return { text: readFileSync(path, 'utf8') }
  } catch (error) {
    return { problem: `cannot read ${path} (${(error as NodeJS.ErrnoException).code})` }
  }
}

/** A certificate or a key as the path of its PEM file; read at start, the value is its text. */
export const pemFile = () =>
  z
    .string()
    .transform((path, context) => {
      const found = read(path)
      if ('text' in found && found.text.includes('-----BEGIN ')) return found.text
      context.addIssue({ code: 'custom', message: 'problem' in found ? found.problem : `${path} is no PEM file` })
      return z.NEVER
    })
    .optional()

/** What both services are configured by. */
export const commonSchema = {
  KAFKA_BROKERS: z
    .string()
    .default('127.0.0.1:19092')
    .transform((list) => list.split(',').map((broker) => broker.trim()))
    .refine(
      (list) => list.every((broker) => /^[^\s:/]+:\d+$/.test(broker)),
      'must be host:port, or several with commas',
    ),
  KAFKA_TLS: z
    .enum(['true', 'false'])
    .default('false')
    .transform((text) => text === 'true'),
  KAFKA_CA_FILE: pemFile(),
  KAFKA_CERT_FILE: pemFile(),
  KAFKA_KEY_FILE: pemFile(),
  KAFKA_SASL_MECHANISM: z.enum(['plain', 'scram-sha-256', 'scram-sha-512']).optional(),
  KAFKA_USERNAME: z.string().optional(),
  KAFKA_PASSWORD: z.string().optional(),
  KAFKA_TOPIC: z
    .string()
    .regex(/^[a-zA-Z0-9._-]{1,200}$/, 'must be 1 to 200 letters, digits, dots, underscores or hyphens')
    .default('iot-data'),
  KAFKA_TOPIC_PARTITIONS: integer(6, 1, 10_000),
  KAFKA_REPLICATION_FACTOR: wholeNumber(1, 100).optional(),
  LOG_LEVEL: z.enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']).default('info'),
  SHUTDOWN_TIMEOUT_MS: integer(10_000, 100, 600_000),
}
export type CommonConfig = z.output<z.ZodObject<typeof commonSchema>>

/** A URL with one of the given schemes, e.g. `['redis', 'rediss']`. */
export const url = (fallback: string, schemes: string[]) =>
  z
    .string()
    .refine((text) => URL.canParse(text) && schemes.includes(new URL(text).protocol.slice(0, -1)), {
      message: `must be a URL that begins with ${schemes.map((scheme) => `${scheme}://`).join(' or ')}`,
    })
    .default(fallback)

// A setting that would silently not be used could be a connection in the clear.
const NEEDS: [variable: string, needed: string, beginsWith?: string[]][] = [
  ['MQTT_CA_FILE', 'MQTT_URL', ['mqtts://', 'wss://']],
  ['MQTT_CERT_FILE', 'MQTT_URL', ['mqtts://', 'wss://']],
  ['MQTT_CERT_FILE', 'MQTT_KEY_FILE'],
  ['MQTT_KEY_FILE', 'MQTT_CERT_FILE'],
  ['KAFKA_CA_FILE', 'KAFKA_TLS', ['true']],
  ['KAFKA_CERT_FILE', 'KAFKA_TLS', ['true']],
  ['KAFKA_CERT_FILE', 'KAFKA_KEY_FILE'],
  ['KAFKA_KEY_FILE', 'KAFKA_CERT_FILE'],
  ['KAFKA_SASL_MECHANISM', 'KAFKA_USERNAME'],
  ['KAFKA_SASL_MECHANISM', 'KAFKA_PASSWORD'],
  ['KAFKA_USERNAME', 'KAFKA_SASL_MECHANISM'],
  ['KAFKA_PASSWORD', 'KAFKA_SASL_MECHANISM'],
  ['REDIS_CA_FILE', 'REDIS_URL', ['rediss://']],
]

function unmetNeeds(shape: z.ZodRawShape, given: NodeJS.ProcessEnv): string[] {
  const isGiven = (name: string) => name in given || `${name}_FILE` in given
  const isMet = (name: string, starts?: string[]) =>
    starts ? starts.some((start) => given[name]?.startsWith(start)) : isGiven(name)
  return NEEDS.filter(
    ([name, needed, starts]) => name in shape && isGiven(name) && needed in shape && !isMet(needed, starts),
  ).map(([name, needed, starts]) => `${name}: needs ${needed}${starts ? ` with ${starts.join(' or ')}` : ''}`)
}

/** Puts the content of `X_FILE` into `given` as X, for each secret X of the schema. Answers the mistakes. */
function readSecrets(shape: z.ZodRawShape, given: NodeJS.ProcessEnv): string[] {
  const wrong: string[] = []
  for (const name of Object.keys(shape).filter((known) => /(PASSWORD|KEY)$/.test(known))) {
    const file = `${name}_FILE`
    const path = given[file]
    if (path === undefined || file in shape) continue
    const found = read(path)
    if (name in given) wrong.push(`${file}: give either ${name} or ${file}`)
    else if ('problem' in found) wrong.push(`${file}: ${found.problem}`)
    else if (found.text.trim() === '') wrong.push(`${file}: ${path} is empty`)
    else given[name] = found.text.trim()
  }
  return wrong
}

/** Certificates that cannot be used: a key that is not the certificate's, or one that is damaged or encrypted. */
function unusableCertificates(config: Record<string, unknown>): string[] {
  return ['MQTT', 'KAFKA', 'REDIS'].flatMap((server) => {
    const of = (kind: string) => config[`${server}_${kind}_FILE`] as string | undefined
    const lines: string[] = []
    for (const [name, options] of [
      [`${server}_CA_FILE`, { ca: of('CA') }],
      [`${server}_CERT_FILE`, { cert: of('CERT'), key: of('KEY') }],
    ] as const) {
      try {
        createSecureContext(options)
      } catch (error) {
        lines.push(`${name}: cannot be used (${(error as Error).message.split(':').at(-1)})`)
      }
    }
    return lines
  })
}

/**
 * Reads the configuration. An empty variable counts as not given; a secret X may be given as X_FILE, a file's path.
 * @throws {ConfigError} with a line for each variable that is wrong
 */
export function loadConfig<T extends z.ZodRawShape>(shape: T, env: NodeJS.ProcessEnv): z.output<z.ZodObject<T>> {
  const given = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== ''))
  const wrong = [...readSecrets(shape, given), ...unmetNeeds(shape, given), ...unknownVariables(env)]
  const result = z.object(shape).safeParse(given)
  if (!result.success) wrong.push(...result.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`))
  else if (wrong.length === 0) wrong.push(...unusableCertificates(result.data))
  if (result.success && wrong.length === 0) return result.data
  throw new ConfigError(wrong)
}

export class ConfigError extends Error {
  readonly lines: string[]
  constructor(lines: string[]) {
    super(lines.join('\n'))
    this.lines = lines
  }
}

/** The members that have a value: for libraries that take undefined for one. */
export function given<T extends object>(options: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as never
}
