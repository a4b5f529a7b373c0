// What surrounds the calls of a REST API: keys, limits, errors, other methods, the description at /openapi.json. It knows
// no call by name; any service can put its own into it.
import { isIP } from 'node:net'
import helmet from '@fastify/helmet'
import rateLimit, { normalizeIP } from '@fastify/rate-limit'
import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import {
  type FastifyError,
  type FastifyInstance,
  type FastifyPluginAsync,
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
import { addHealthRoutes, type Check, healthSchemas } from '../health.js'
import { createLimitedLog } from '../log-limit.js'
import { type AccessOptions, ANYBODY, type Caller, createAccess } from './access.js'
import { addLoad } from './load.js'
import { Problem } from './problem.js'

const BODY_BYTES = 256 * 1024
const REQUEST_MS = 30_000 // to send a request
const STALL_MS = 90_000 // a response of which nothing is taken for so long; longer than a call may take
const RETRY_S = 1 // what is not there now may be back by then
const MONITORING_PER_SECOND = 100 // for each client
const INVALID: Record<string, string> = {
  params: 'INVALID_ID',
  querystring: 'INVALID_QUERY',
  headers: 'INVALID_HEADER',
  body: 'INVALID_BODY',
}
export const FORBIDDEN = new Problem(403, 'FORBIDDEN', 'This key is not good for this call')
const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE', 'QUERY']

declare module 'fastify' {
  interface FastifyRequest {
    /** Who calls; anybody where no keys are set, and for calls that need none. */
    caller: Caller
  }
  interface FastifyContextConfig {
    /** The code, and the words where the schema's do not say enough, for a part of the request that it refuses. */
    invalid?: Partial<Record<string, { code: string; message?: string }>>
    /** Its answer holds only devices of the caller's prefix: it need not be refused to those who have one. */
    keepsToPrefix?: boolean
    /**
     * For programs that watch the service: reached under any name, and limited apart from other calls, so that no
     * caller makes a healthy service look dead.
     */
    isForMonitoring?: boolean
  }
}

/** Parts of an OpenAPI document. */
export type Description = {
  paths: Record<string, object>
  components: { schemas?: Record<string, object>; securitySchemes?: Record<string, object> }
}

export type HttpOptions = AccessOptions & {
  title: string
  description: string
  version: string
  /** For each client. */
  callsPerSecond: number
  /** Whose X-Forwarded-For is believed: nobody's, everybody's, or that of these addresses. */
  trustProxy: boolean | string[]
  /** Plugins with what everybody may see, such as pages; it knows no data. */
  open?: FastifyPluginAsync[]
  /** Describes calls that are passed on to another service. */
  describeOthers?: () => Promise<Description>
}

export type HttpServer = {
  app: FastifyInstance
  /** Takes no more calls, lets those that are complete end, then closes every connection. */
  stop(withinMs: number): Promise<void>
}

/**
 * Builds the server, does not listen.
 * @param calls plugins with the calls, which need access
 */
export async function createHttpServer(
  options: HttpOptions,
  calls: FastifyPluginAsync[],
  checks: Record<string, Check>,
  logger: Logger,
): Promise<HttpServer> {
  const access = createAccess(options)
  const app = fastify({
    loggerInstance: logger.child({}, { level: 'warn' }),
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: BODY_BYTES,
    requestTimeout: REQUEST_MS,
    connectionTimeout: STALL_MS,
    forceCloseConnections: 'idle',
    trustProxy: options.trustProxy,
    routerOptions: { maxParamLength: 20_000 },
    frameworkErrors: (_error, request, untyped) => {
      // such as a path with a broken escape: before any hook, so the limit is asked here
      const reply = untyped as FastifyReply
      const answer = (problem: Problem) => void reply.code(problem.statusCode).send(problem.body())
      limit
        .call(app, request, reply)
        .then(() => new Problem(400, 'INVALID_URL', 'The path cannot be read'))
        .then(answer, answer)
    },
  }) as unknown as FastifyInstance
  app.setValidatorCompiler(validatorCompiler)
  app.setSerializerCompiler(serializerCompiler)
  app.removeAllContentTypeParsers()
  app.decorateRequest('caller')
  answerErrors(app, logger)
  await app.register(helmet, { contentSecurityPolicy: { directives: { scriptSrc: ["'self'", "'unsafe-inline'"] } } })
  const limit = await addLimit(app, options.callsPerSecond)
  app.addHook('onRequest', async (request) => {
    request.caller = ANYBODY
    if (!request.routeOptions.config.isForMonitoring) access.checkHost(request.headers)
    if (request.is404) throw new Problem(404, 'NOT_FOUND', 'There is no such call')
  })
  const load = addLoad(app, BODY_BYTES)
  await describe(app, options)
  const methods = collectMethods(app)
  addHealthRoutes(app, checks, healthSchemas, ({ headers }) => {
    try {
      access.checkHost(headers)
      access.callerOf(headers)
      return true
    } catch {
      return false
    }
  })
  for (const plugin of options.open ?? []) await app.register(plugin)
  await app.register(async (guarded) => {
    guarded.addHook('onRequest', async (request, reply) => {
      request.caller = access.callerOf(request.headers)
      // so that a page need not try what its key is not good for
      const { mayWrite, prefix } = request.caller
      if (!mayWrite) void reply.header('key-allows', prefix === '' ? 'read' : 'read-prefix')
      if (!isAllowed(request)) throw FORBIDDEN
    })
    for (const plugin of calls) await guarded.register(plugin)
  })
  refuseOtherMethods(app, methods)
  return { app, stop: (withinMs) => stop(app, load.idle(withinMs * 0.6)) }
}

/** Whether a caller's key is good for a call, by what is asked alone: the answer tells nothing of what there is. */
function isAllowed({ caller, method, params, routeOptions }: FastifyRequest): boolean {
  const { deviceId } = (params ?? {}) as { deviceId?: string }
  const isOfPrefix = deviceId === undefined ? routeOptions.config.keepsToPrefix : deviceId.startsWith(caller.prefix)
  return (caller.mayWrite || method === 'GET' || method === 'HEAD') && (caller.prefix === '' || isOfPrefix === true)
}

async function stop(app: FastifyInstance, idle: Promise<void>): Promise<void> {
  const closed = app.close()
  await idle
  const closeAll = () => app.server.closeAllConnections()
  closeAll()
  const timer = setInterval(closeAll, 50) // for those who come before it listens no more
  await closed.finally(() => clearInterval(timer))
}

function answerErrors(app: FastifyInstance, logger: Logger): void {
  const log = createLimitedLog(logger)
  app.setErrorHandler((error: FastifyError | Problem, request, reply) => {
    const answer = (problem: Problem) => {
      if (problem.statusCode === 503) void reply.header('retry-after', RETRY_S)
      return reply.code(problem.statusCode).send(problem.body())
    }
    if (error instanceof Problem) return answer(error)
    const statusCode = error.statusCode ?? 500
    if (statusCode >= 500) {
      log.warn('failed', { err: error, route: request.routeOptions.url }, 'a call failed')
      return answer(new Problem(500, 'INTERNAL', 'Something went wrong'))
    }
    const part = error.validationContext ?? 'request'
    const { code, message } = request.routeOptions.config.invalid?.[part] ?? {}
    return answer(new Problem(statusCode, code ?? INVALID[part] ?? error.code, message ?? error.message))
  })
}

/** Who calls, for limits: X-Forwarded-For may hold anything, so what is no address is one client, and is not kept. */
export const clientOf = ({ ip }: { ip: string }): string => (isIP(ip) === 0 ? 'no address' : normalizeIP(ip))

/** Before what refuses calls, so that those are counted as well. */
async function addLimit(app: FastifyInstance, callsPerSecond: number) {
  await app.register(rateLimit, {
    global: false,
    keyGenerator: clientOf,
    max: callsPerSecond,
    timeWindow: 1000,
    errorResponseBuilder: (_request, { max, after }) =>
      new Problem(429, 'TOO_MANY_REQUESTS', `More than ${max} calls in a second: wait ${after}`),
  })
  const limit = app.rateLimit()
  const monitoringLimit = app.rateLimit({ max: MONITORING_PER_SECOND })
  app.addHook('onRequest', (request, reply) =>
    (request.routeOptions.config.isForMonitoring ? monitoringLimit : limit).call(app, request, reply),
  )
  return limit
}

async function describe(app: FastifyInstance, options: HttpOptions): Promise<void> {
  const { title, description, version, keys, readKeys, describeOthers } = options
  let others: Description = { paths: {}, components: {} }
  const whole = (own: object) => {
    const { paths, components, ...rest } = own as Description
    const schemas = { ...others.components.schemas, ...components.schemas }
    return { ...rest, paths: { ...others.paths, ...paths }, components: { ...components, schemas } }
  }
  const hearOthers = async () => {
    if (describeOthers) others = await describeOthers()
  }
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title, version, description },
      components: { securitySchemes: { key: { type: 'http', scheme: 'bearer' } } },
      ...(keys.length + readKeys.length > 0 ? { security: [{ key: [] }] } : {}),
    },
    transform: jsonSchemaTransform,
    transformObject: jsonSchemaTransformObject,
  })
  await app.register(swaggerUi, {
    routePrefix: '/docs',
    uiHooks: { preHandler: hearOthers },
    transformSpecification: whole,
    transformSpecificationClone: false,
  })
  app.get('/openapi.json', { schema: { hide: true }, preHandler: hearOthers }, async () => whole(app.swagger()))
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
      // before its body is read
      onRequest: async (_request, reply) => {
        void reply.header('allow', allow)
        throw new Problem(405, 'METHOD_NOT_ALLOWED', `This call takes ${allow}`)
      },
      handler: async () => {},
    })
  }
}
