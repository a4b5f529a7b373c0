// Liveness, readiness and metrics over HTTP, the same for both services.
import type { FastifyInstance } from 'fastify'
import { collectDefaultMetrics, register } from 'prom-client'

/** A part's readiness: null when ready, else what is wrong, in a few words. */
export type Check = () => string | null

/** Adds `GET /health/live`, `GET /health/ready` (503 names what is not ready) and `GET /metrics`. */
export function addHealthRoutes(app: FastifyInstance, checks: Record<string, Check>): void {
  collectDefaultMetrics()
  app.get('/health/live', async () => ({ status: 'live' }))
  app.get('/health/ready', async (_request, reply) => {
    const notReady: Record<string, string> = {}
    for (const [part, check] of Object.entries(checks)) {
      const problem = check()
      if (problem !== null) notReady[part] = problem
    }
    if (Object.keys(notReady).length === 0) return { status: 'ready' }
    return reply.code(503).send({ status: 'not ready', not_ready: notReady })
  })
  app.get('/metrics', async (_request, reply) => reply.type(register.contentType).send(await register.metrics()))
}
