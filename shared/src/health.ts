// Liveness, readiness and metrics over HTTP, the same for every service.
import type { FastifyInstance, FastifyRequest, FastifySchema } from 'fastify'
import { collectDefaultMetrics, Gauge, register } from 'prom-client'
import { z } from 'zod'

const EVENT_LOOP_SAMPLE_MS = 100 // the default of 10 wakes an idle service a hundred times a second

/** A part's readiness: null when ready, else what is wrong, in a few words. */
export type Check = () => string | null

/** For a server that describes its calls. */
export const healthSchemas = {
  live: { summary: 'The process runs', security: [], response: { 200: z.object({ status: z.literal('live') }) } },
  ready: {
    summary: 'Everything that it needs is there',
    description: 'Where keys are set, callers without one learn which part is not ready, and not why.',
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

collectDefaultMetrics({ eventLoopMonitoringPrecision: EVENT_LOOP_SAMPLE_MS })
const services = new Set<() => Record<string, string>>()
new Gauge({
  name: 'iot_ready',
  help: '1 when the service is ready, else 0',
  collect() {
    this.set([...services].every((problems) => Object.keys(problems()).length === 0) ? 1 : 0)
  },
})

/**
 * Adds `GET /health/live`, `GET /health/ready` (503 names what is not ready) and `GET /metrics`.
 * @param schemas describe them where there is a description of the API
 * @param mayKnowWhy whether a caller may see servers' addresses and words
 */
export function addHealthRoutes(
  app: FastifyInstance,
  checks: Record<string, Check>,
  schemas: { live?: FastifySchema; ready?: FastifySchema; metrics?: FastifySchema } = {},
  mayKnowWhy: (request: FastifyRequest) => boolean = () => true,
): void {
  const config = { isForMonitoring: true }
  const problems = () => {
    const notReady: Record<string, string> = {}
    for (const [part, check] of Object.entries(checks)) {
      const problem = check()
      if (problem !== null) notReady[part] = problem
    }
    return notReady
  }
  services.add(problems)
  app.addHook('onClose', async () => void services.delete(problems))
  app.get('/health/live', { schema: schemas.live ?? {}, config }, async () => ({ status: 'live' }))
  app.get('/health/ready', { schema: schemas.ready ?? {}, config }, async (request, reply) => {
    const notReady = problems()
    const parts = Object.keys(notReady)
    if (parts.length === 0) return { status: 'ready' }
    const shown = mayKnowWhy(request) ? notReady : Object.fromEntries(parts.map((part) => [part, 'not ready']))
    return reply.code(503).send({ status: 'not ready', not_ready: shown })
  })
  app.get('/metrics', { schema: schemas.metrics ?? {}, config }, async (_request, reply) =>
    reply.type(register.contentType).send(await register.metrics()),
  )
}
