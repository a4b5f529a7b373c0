// The REST API around its routes: keys, limits, errors, the description at /openapi.json. Builds the server, does not listen.
import { readFileSync } from 'node:fs'
import bearerAuth from '@fastify/bearer-auth'
import helmet from '@fastify/helmet'
import rateLimit from '@fastify/rate-limit'
import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import { addHealthRoutes, type Check } from '@iot/shared/health'
import { type FastifyError, type FastifyInstance, fastify } from 'fastify'
import {
  jsonSchemaTransform,
  jsonSchemaTransformObject,
  serializerCompiler,
  validatorCompiler,
} from 'fastify-type-provider-zod'
import type { Logger } from 'pino'
import { z } from 'zod'
import { failure } from './routes.js'

const BODY_BYTES = 256 * 1024
const REQUEST_MS = 30_000
const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE']

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }

const HEALTH = {
  live: { summary: 'The process runs', security: [], response: { 200: z.object({ status: z.literal('live') }) } },
  ready: {
    summary: 'Everything that it needs is there',
    security: [],
    response: {
      200: z.object({ status: z.literal('ready') }),
      503: z.object({ status: z.literal('not ready'), not_ready: z.record(z.string(), z.string()) }),
    },
  },
  metrics: {
    summary: 'Prometheus metrics',
    security: [],
    produces: ['text/plain'],
    response: { 200: { content: { 'text/plain': { schema: z.string() } } } },
  },
}

/** @param keys the keys that callers may show; none: everybody may call */
export async function buildApi(
  options: { keys: string[]; callsPerSecond: number },
  addRoutes: (app: FastifyInstance) => void,
  checks: Record<string, Check>,
  logger: Logger,
): Promise<FastifyInstance> {
  const app = fastify({
    loggerInstance: logger.child({}, { level: 'warn' }),
    disableRequestLogging: true,
    bodyLimit: BODY_BYTES,
    requestTimeout: REQUEST_MS,
    forceCloseConnections: 'idle',
    routerOptions: { maxParamLength: 20_000 },
  }) as unknown as FastifyInstance
  app.setValidatorCompiler(validatorCompiler)
  app.setSerializerCompiler(serializerCompiler)
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (_request, body, done) => done(null, body))
  app.setErrorHandler((error: FastifyError, request, reply) => {
    const statusCode = error.statusCode ?? 500
    if (statusCode >= 500) {
      request.log.error({ err: error }, 'request failed')
      return reply.code(500).send(failure(500, 'INTERNAL', 'Something went wrong'))
    }
    // a QUERY without a body: no call of ours takes that method
    if (error.code === 'FST_ERR_ROUTE_MISSING_CONTENT_TYPE') {
      return reply
        .code(405)
        .header('allow', 'GET, HEAD, POST')
        .send(failure(405, 'METHOD_NOT_ALLOWED', `No call takes ${request.method}`))
    }
    const part = error.validationContext
    const isBody = part === 'body' || error.code === 'FST_ERR_CTP_EMPTY_JSON_BODY'
    if (isBody) {
      const message = 'The body must be a JSON object with a non-empty string "command"'
      return reply.code(400).send(failure(400, 'INVALID_COMMAND', message))
    }
    const code = part && { params: 'INVALID_ID', querystring: 'INVALID_QUERY', headers: 'INVALID_HEADER' }[part]
    const isDevice = part === 'params' && request.url.startsWith('/devices')
    return reply
      .code(statusCode)
      .send(failure(statusCode, isDevice ? 'INVALID_DEVICE_ID' : (code ?? error.code ?? 'BAD_REQUEST'), error.message))
  })
  app.setNotFoundHandler((_request, reply) => reply.code(404).send(failure(404, 'NOT_FOUND', 'There is no such call')))

  await app.register(helmet, { contentSecurityPolicy: { directives: { scriptSrc: ["'self'", "'unsafe-inline'"] } } })
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'IoT ingestion platform', version, description: 'Who is online, and commands to devices.' },
      components: { securitySchemes: { key: { type: 'http', scheme: 'bearer' } } },
      ...(options.keys.length > 0 ? { security: [{ key: [] }] } : {}),
    },
    transform: jsonSchemaTransform,
    transformObject: jsonSchemaTransformObject,
  })
  await app.register(swaggerUi, { routePrefix: '/docs' })
  app.get('/openapi.json', { schema: { hide: true } }, async () => app.swagger())
  const methods = new Map<string, Set<string>>()
  app.addHook('onRoute', ({ url, method }) => {
    const own = methods.get(url) ?? new Set()
    for (const one of [method].flat()) own.add(one)
    methods.set(url, own)
  })
  addHealthRoutes(app, checks, HEALTH)

  await app.register(async (calls) => {
    await calls.register(rateLimit, {
      max: options.callsPerSecond,
      timeWindow: 1000,
      errorResponseBuilder: (_request, { after }) => {
        const body = failure(
          429,
          'TOO_MANY_REQUESTS',
          `More than ${options.callsPerSecond} calls in a second: wait ${after}`,
        )
        return Object.assign(new Error(body.message), body)
      },
    })
    if (options.keys.length > 0) {
      await calls.register(bearerAuth, {
        keys: new Set(options.keys), // compared in constant time
        errorResponse: () => failure(401, 'UNAUTHORIZED', 'Give a key: Authorization: Bearer KEY'),
        verifyErrorLogLevel: 'debug',
      })
    }
    addRoutes(calls)
  })
  for (const [url, own] of [...methods]) {
    const allow = [...own].join(', ')
    app.route({
      method: METHODS.filter((method) => !own.has(method)),
      url,
      schema: { hide: true },
      handler: async (_request, reply) =>
        reply
          .code(405)
          .header('allow', allow)
          .send(failure(405, 'METHOD_NOT_ALLOWED', `This call takes ${allow}`)),
    })
  }
  return app
}
