// What surrounds the calls of a REST API: keys, limits, errors, the description at /openapi.json. It knows no call by
// name. Builds the server, does not listen.
import { readFileSync } from 'node:fs'
import bearerAuth from '@fastify/bearer-auth'
import helmet from '@fastify/helmet'
import rateLimit from '@fastify/rate-limit'
import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import { addHealthRoutes, type Check } from '@iot/shared/health'
import {
  type FastifyError,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  fastify,
  LogController,
} from 'fastify'
import {
  jsonSchemaTransform,
  jsonSchemaTransformObject,
  serializerCompiler,
  validatorCompiler,
} from 'fastify-type-provider-zod'
import type { Logger } from 'pino'
import { z } from 'zod'
import { type Problem, problem, sendProblem } from './problem.js'

const BODY_BYTES = 256 * 1024
const REQUEST_MS = 30_000
const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE']

const LOOPBACK = ['localhost', '127.0.0.1', '::1']
const OPEN_TO_ANY_HOST = /^\/(health\/|metrics$)/ // counts only, and who scrapes them has names of its own for us

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string
}

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

export type HttpOptions = {
  title: string
  description: string
  /** The keys that callers may show; none: everybody may call. */
  keys: string[]
  /** For each client. */
  callsPerSecond: number
  /** Whose X-Forwarded-For is believed: nobody's, everybody's, or that of these addresses. */
  trustProxy: boolean | string[]
  /** Without keys: the names that callers may reach the API by, besides those of loopback. */
  hosts: string[]
  /** What is wrong with a request that a call's schema refuses; null for the general answer. */
  describeInvalid?: (request: FastifyRequest, part: string) => Problem | null
}

/** @param addRoutes adds the calls, which need a key */
export async function buildHttp(
  options: HttpOptions,
  addRoutes: (app: FastifyInstance) => void,
  checks: Record<string, Check>,
  logger: Logger,
): Promise<FastifyInstance> {
  const app = fastify({
    loggerInstance: logger.child({}, { level: 'warn' }),
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: BODY_BYTES,
    requestTimeout: REQUEST_MS,
    forceCloseConnections: 'idle',
    trustProxy: options.trustProxy,
    routerOptions: { maxParamLength: 20_000 },
  }) as unknown as FastifyInstance
  app.setValidatorCompiler(validatorCompiler)
  app.setSerializerCompiler(serializerCompiler)
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (_request, body, done) => done(null, body))
  app.setErrorHandler((error: FastifyError, request, reply) => answerError(error, request, reply, options))
  if (options.keys.length === 0) refuseOtherHosts(app, options.hosts)

  await app.register(helmet, { contentSecurityPolicy: { directives: { scriptSrc: ["'self'", "'unsafe-inline'"] } } })
  await app.register(rateLimit, {
    max: options.callsPerSecond,
    timeWindow: 1000,
    errorResponseBuilder: (_request, { after }) => {
      const words = `More than ${options.callsPerSecond} calls in a second: wait ${after}`
      return Object.assign(new Error(words), problem(429, 'TOO_MANY_REQUESTS', words))
    },
  })
  app.setNotFoundHandler({ preHandler: app.rateLimit() }, (_request, reply) =>
    sendProblem(reply, problem(404, 'NOT_FOUND', 'There is no such call')),
  )
  await describe(app, options)
  const methods = collectMethods(app)
  addHealthRoutes(app, checks, HEALTH)
  await app.register(async (calls) => {
    if (options.keys.length > 0) {
      await calls.register(bearerAuth, {
        keys: new Set(options.keys), // compared in constant time
        errorResponse: () => problem(401, 'UNAUTHORIZED', 'Give a key: Authorization: Bearer KEY'),
        verifyErrorLogLevel: 'debug',
      })
    }
    addRoutes(calls)
  })
  refuseOtherMethods(app, methods)
  return app
}

/** Ends what is under way: whoever holds a connection open holds up no stop. */
export async function closeHttp(app: FastifyInstance, withinMs: number): Promise<void> {
  const timer = setTimeout(() => app.server.closeAllConnections(), Math.min(withinMs / 2, 1000))
  await app.close().finally(() => clearTimeout(timer))
}

function answerError(error: FastifyError, request: FastifyRequest, reply: FastifyReply, options: HttpOptions) {
  const statusCode = error.statusCode ?? 500
  if (statusCode >= 500) {
    request.log.error({ err: error }, 'request failed')
    return sendProblem(reply, problem(500, 'INTERNAL', 'Something went wrong'))
  }
  // a QUERY without a body: no call of ours takes that method
  if (error.code === 'FST_ERR_ROUTE_MISSING_CONTENT_TYPE') {
    void reply.header('allow', 'GET, HEAD, POST')
    return sendProblem(reply, problem(405, 'METHOD_NOT_ALLOWED', `No call takes ${request.method}`))
  }
  const part = error.code === 'FST_ERR_CTP_EMPTY_JSON_BODY' ? 'body' : error.validationContext
  const known = part && options.describeInvalid?.(request, part)
  if (known) return sendProblem(reply, known)
  const codes: Record<string, string> = {
    params: 'INVALID_ID',
    querystring: 'INVALID_QUERY',
    headers: 'INVALID_HEADER',
  }
  const code = part && codes[part]
  return sendProblem(reply, problem(statusCode, code ?? error.code ?? 'BAD_REQUEST', error.message))
}

/**
 * A page that a browser on this machine has open can reach loopback under a name of its own (DNS rebinding): without
 * keys only the names count that we are known by.
 */
function refuseOtherHosts(app: FastifyInstance, hosts: string[]): void {
  const known = new Set([...LOOPBACK, ...hosts])
  app.addHook('onRequest', async (request, reply) => {
    if (known.has(request.hostname.replace(/^\[|\]$/g, '')) || OPEN_TO_ANY_HOST.test(request.url)) return
    const words = `This API does not answer to ${request.hostname}: give it in API_ALLOWED_HOSTS, or set API_KEY`
    return sendProblem(reply, problem(421, 'HOST_NOT_ALLOWED', words))
  })
}

async function describe(app: FastifyInstance, { title, description, keys }: HttpOptions): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title, version, description },
      components: { securitySchemes: { key: { type: 'http', scheme: 'bearer' } } },
      ...(keys.length > 0 ? { security: [{ key: [] }] } : {}),
    },
    transform: jsonSchemaTransform,
    transformObject: jsonSchemaTransformObject,
  })
  await app.register(swaggerUi, { routePrefix: '/docs' })
  app.get('/openapi.json', { schema: { hide: true } }, async () => app.swagger())
}

function collectMethods(app: FastifyInstance): Map<string, Set<string>> {
  const methods = new Map<string, Set<string>>()
  app.addHook('onRoute', ({ url, method }) => {
    const known = methods.get(url) ?? new Set()
    for (const one of [method].flat()) known.add(one)
    methods.set(url, known)
  })
  return methods
}

function refuseOtherMethods(app: FastifyInstance, methods: Map<string, Set<string>>): void {
  for (const [url, known] of [...methods]) {
    const allow = [...known].join(', ')
    app.route({
      method: METHODS.filter((method) => !known.has(method)),
      url,
      schema: { hide: true },
      handler: async (_request, reply) => {
        void reply.header('allow', allow)
        return sendProblem(reply, problem(405, 'METHOD_NOT_ALLOWED', `This call takes ${allow}`))
      },
    })
  }
}
