// The REST API: devices online, commands to them, health. Builds the server, does not listen.
import { isDeviceId } from '@iot/shared/contract'
import { addHealthRoutes, type Check } from '@iot/shared/health'
import { type FastifyInstance, fastify } from 'fastify'
import { z } from 'zod'
import type { CommandOutcome } from './commands.js'
import type { Presence } from './presence.js'

const commandSchema = z.looseObject({ command: z.string().min(1) })

const refusals = {
  disconnected: [
    503,
    'BROKER_NOT_CONNECTED',
    'Service Unavailable',
    'The MQTT broker is not connected; the command was not sent',
  ],
  timeout: [504, 'BROKER_TIMEOUT', 'Gateway Timeout', 'The MQTT broker did not acknowledge the command in time'],
} as const

/** @param send publishes a command's JSON text to a device */
export function buildApi(
  presence: Pick<Presence, 'list' | 'isOnline'>,
  send: (deviceId: string, text: string) => Promise<CommandOutcome>,
  checks: Record<string, Check>,
): FastifyInstance {
  const app = fastify({
    bodyLimit: 256 * 1024,
    forceCloseConnections: 'idle',
    routerOptions: { maxParamLength: 20_000 },
  })
  // The body stays text: what the device gets is what the caller sent, numbers included.
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (_request, body, done) => done(null, body))
  app.setErrorHandler((error: Error & { statusCode?: number; code?: string }, request, reply) => {
    const statusCode = error.statusCode ?? 500
    if (statusCode >= 500) {
      request.log.error({ err: error }, 'request failed')
      return reply.code(500).send(failure(500, 'INTERNAL', 'Internal Server Error', 'Something went wrong'))
    }
    return reply.code(statusCode).send(failure(statusCode, error.code ?? 'BAD_REQUEST', error.name, error.message))
  })
  addHealthRoutes(app, checks)

  app.get('/devices', async () => presence.list())

  app.post<{ Params: { deviceId: string }; Body: string | undefined }>(
    '/devices/:deviceId/command',
    async (request, reply) => {
      const { deviceId } = request.params
      const refuse = (statusCode: number, code: string, error: string, message: string) =>
        reply.code(statusCode).send(failure(statusCode, code, error, message))
      if (!isDeviceId(deviceId)) {
        return refuse(
          400,
          'INVALID_DEVICE_ID',
          'Bad Request',
          'A device id is one topic level of 1 to 256 bytes without control characters',
        )
      }
      const text = request.body ?? ''
      if (!commandSchema.safeParse(parsed(text)).success) {
        return refuse(
          400,
          'INVALID_COMMAND',
          'Bad Request',
          'The body must be a JSON object with a non-empty string "command"',
        )
      }
      if (!presence.isOnline(deviceId)) {
        return refuse(404, 'DEVICE_OFFLINE', 'Not Found', 'The device is not online: it has not said hello of late')
      }
      const outcome = await send(deviceId, text)
      if (outcome !== 'acknowledged') {
        const [statusCode, code, error, message] = refusals[outcome]
        return refuse(statusCode, code, error, message)
      }
      return reply.code(202).send({ status: 'sent', device_id: deviceId })
    },
  )
  return app
}

const failure = (statusCode: number, code: string, error: string, message: string) => ({
  statusCode,
  code,
  error,
  message,
})

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
