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

/** A time that something may take, such as `5s`; its value is in milliseconds. */
export const duration = (maxMs: number, maxText: string) =>
  z
    .string()
    .regex(/^[1-9]\d{0,7}(ms|s|m|h)$/, 'must be a duration such as 500ms, 5s or 2m')
    .transform((text) => Number.parseInt(text, 10) * (UNITS_MS[text.replace(/\d+/, '')] as number))
    .refine((ms) => ms <= maxMs, `must be at most ${maxText}`)

/** Sends what is JSON already; its schema only describes it. */
export const sendJson = (reply: FastifyReply, json: string | Readable) =>
  reply.type('application/json; charset=utf-8').send(json) as never
