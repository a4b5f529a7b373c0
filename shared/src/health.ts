// Liveness, readiness and metrics over HTTP, the same for both services.
import type { FastifyInstance, FastifySchema } from 'fastify'
import { collectDefaultMetrics, Gauge, register } from 'prom-client'

const EVENT_LOOP_SAMPLE_MS = 100 // the default of 10 wakes an idle service a hundred times a second

/** A part's readiness: null when ready, else what is wrong, in a few words. */
export type Check = () => string | null

/**
 * Adds `GET /health/live`, `GET /health/ready` (503 names what is not ready) and `GET /metrics`.
 * @param schemas describe them where there is a description of the API
 */
export function addHealthRoutes(
  app: FastifyInstance,
  checks: Record<string, Check>,
  schemas: { live?: FastifySchema; ready?: FastifySchema; metrics?: FastifySchema } = {},
): void {
  const problems = () => {
    const notReady: Record<string, string> = {}
    for (const [part, check] of Object.entries(checks)) {
      const problem = check()
      if (problem !== null) notReady[part] = problem
    }
    return notReady
  }
  collectDefaultMetrics({ eventLoopMonitoringPrecision: EVENT_LOOP_SAMPLE_MS })
  new Gauge({
    name: 'iot_ready',
    help: '1 when the service is ready, else 0',
    collect() {
      this.set(Object.keys(problems()).length === 0 ? 1 : 0)
    },
  })
  app.get('/health/live', { schema: schemas.live ?? {} }, async () => ({ status: 'live' }))
  app.get('/health/ready', { schema: schemas.ready ?? {} }, async (_request, reply) => {
    const notReady = problems()
    if (Object.keys(notReady).length === 0) return { status: 'ready' }
    return reply.code(503).send({ status: 'not ready', not_ready: notReady })
  })
  app.get('/metrics', { schema: schemas.metrics ?? {} }, async (_request, reply) =>
    reply.type(register.contentType).send(await register.metrics()),
  )
}
