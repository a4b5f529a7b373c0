// What calls of several services have in common: a device in the path, durations, JSON that is text already.
import type { Readable } from 'node:stream'
import type { FastifyReply } from 'fastify'
import { z } from 'zod'
import { isDeviceId } from '../contract.js'

const UNITS_MS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }

/** Of a call about one device. */
export const deviceParams = z.object({
  deviceId: z
    .string()
    // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it excludes
    .regex(/^[^\u0000-\u001f\u007f-\u009f/+#]{1,256}$/)
    .refine(isDeviceId, 'A device id is one topic level of 1 to 256 bytes without control characters'),
})
export const invalidDevice = {
  code: 'INVALID_DEVICE_ID',
  message: 'A device id is one topic level of 1 to 256 bytes without control characters',
}

/** What whole numbers from 1 to `most` look like: a description of an API holds no bound of a number within a text. */
export function upTo(most: number): string {
  const digits = String(most)
  const less = [...digits].flatMap((digit, at) => {
    const [low, high] = [at === 0 ? 1 : 0, Number(digit) - 1]
    const rest = digits.length - at - 1
    return high < low ? [] : [`${digits.slice(0, at)}[${low}-${high}]${rest > 0 ? `\\d{${rest}}` : ''}`]
  })
  const shorter = digits.length > 1 ? [`[1-9]\\d{0,${digits.length - 2}}`] : []
  return `(${[digits, ...less, ...shorter].join('|')})`
}

/** A time that something may take, such as `5s`; its value is in milliseconds. */
export function duration(maxMs: number, maxText: string) {
  const units = Object.entries(UNITS_MS).filter(([, unitMs]) => unitMs <= maxMs)
  const forms = units.map(([unit, unitMs]) => upTo(Math.floor(maxMs / unitMs)) + unit)
  return z
    .string()
    .regex(new RegExp(`^(${forms.join('|')})$`), `must be a duration such as 500ms, 5s or 2m, at most ${maxText}`)
    .transform((text) => Number.parseInt(text, 10) * (UNITS_MS[text.replace(/\d+/, '')] as number))
}

/** A whole number from 1 to `most`. */
export const count = (most: number) =>
  z
    .string()
    .regex(new RegExp(`^${upTo(most)}$`), `must be a whole number from 1 to ${most}`)
    .transform(Number)

/** Sends what is JSON already; its schema only describes it. */
export const sendJson = (reply: FastifyReply, json: string | Readable) =>
  reply.type('application/json; charset=utf-8').send(json) as never
