// GET /: leads whoever opens the bridge in a browser to the page, which is the reader's.
import type { FastifyPluginAsync } from 'fastify'

const WORDS =
  'This is the API of the bridge, described at /docs. The page is at / of the reader, by default on port 8002.\n'

/** @param readerUrl where browsers reach the reader, if that is known */
export const home =
  (readerUrl: string | undefined): FastifyPluginAsync =>
  async (app) => {
    app.get('/', { schema: { hide: true } }, async (_request, reply) => {
      if (readerUrl === undefined) return reply.type('text/plain; charset=utf-8').send(WORDS)
      return reply.redirect(readerUrl, 302)
    })
  }
