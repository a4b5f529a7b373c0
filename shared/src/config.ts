// Configuration from environment variables through a zod schema: all mistakes at once, one clear line for each, and no
// secret in it.
import { readFileSync } from 'node:fs'
import { createSecureContext } from 'node:tls'
import { z } from 'zod'
import { isServiceLink, unknownVariables } from './variables.js'

/** A whole number within bounds, from its decimal text. */
export const wholeNumber = (min: number, max: number) =>
  z
    .string()
    .regex(/^\d+$/, 'must be a whole number')
    .transform(Number)
    .pipe(z.number().min(min, `must be at least ${min}`).max(max, `must be at most ${max}`))

/** The same with a default. */
export const integer = (fallback: number, min: number, max: number) => wholeNumber(min, max).default(fallback)

/** The items of a text with commas. */
export const list = (text: string): string[] =>
  text
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '')

/** Whether a host name, as in a URL or not, is this machine's own. */
export const isLoopback = (host: string): boolean => /^(localhost|127\.\d+\.\d+\.\d+|\[?::1\]?)$/.test(host)

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

/** A URL with one of the given schemes, e.g. `['redis', 'rediss']`. */
export const url = (fallback: string, schemes: string[]) =>
  z
    .string()
    .refine((text) => URL.canParse(text) && schemes.includes(new URL(text).protocol.slice(0, -1)), {
      message: `must be a URL that begins with ${schemes.map((scheme) => `${scheme}://`).join(' or ')}`,
    })
    .default(fallback)

/**
 * That a variable is of no use without another one, or without its beginning so: a setting that would silently not be
 * used could be a connection in the clear.
 */
export type Need = [variable: string, needed: string, beginsWith?: string[]]

function unmetNeeds(needs: Need[], given: NodeJS.ProcessEnv): string[] {
  const isGiven = (name: string) => name in given || `${name}_FILE` in given
  const isMet = (name: string, starts?: string[]) =>
    starts ? starts.some((start) => given[name]?.startsWith(start)) : isGiven(name)
  return needs
    .filter(([name, needed, starts]) => isGiven(name) && !isMet(needed, starts))
    .map(([name, needed, starts]) => `${name}: needs ${needed}${starts ? ` with ${starts.join(' or ')}` : ''}`)
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
  const files = Object.keys(config).filter((name) => /_(CA|CERT)_FILE$/.test(name))
  return files.flatMap((name) => {
    const text = config[name] as string | undefined
    const key = config[name.replace(/_CERT_FILE$/, '_KEY_FILE')] as string | undefined
    try {
      createSecureContext(name.endsWith('_CA_FILE') ? { ca: text } : { cert: text, key })
      return []
    } catch (error) {
      return [`${name}: cannot be used (${(error as Error).message.split(':').at(-1)})`]
    }
  })
}

/**
 * Reads the configuration. An empty variable counts as not given; a secret X may be given as X_FILE, a file's path.
 * @throws {ConfigError} with a line for each variable that is wrong
 */
export function loadConfig<T extends z.ZodRawShape>(
  shape: T,
  env: NodeJS.ProcessEnv,
  needs: Need[] = [],
): z.output<z.ZodObject<T>> {
  const given = Object.fromEntries(Object.entries(env).filter(([name, value]) => value && !isServiceLink(name, value)))
  const wrong = [...readSecrets(shape, given), ...unmetNeeds(needs, given), ...unknownVariables(env)]
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
