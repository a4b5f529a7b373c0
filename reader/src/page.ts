// GET /: the page, which is built from `reader/page` into `dist/page`, and what a browser is to hold it to. It holds no data:
// it asks for them with the key that its reader gives it.
import { join } from 'node:path'
import fastifyStatic from '@fastify/static'
import type { FastifyPluginAsync } from 'fastify'

const ROOT = join(import.meta.dirname, '..', 'dist', 'page')
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "img-src 'self' data:",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
].join('; ')
const FOR_EVER = 'public, max-age=31536000, immutable' // another content has another name

export const page: FastifyPluginAsync = async (app) => {
  await app.register(fastifyStatic, {
    root: ROOT,
    wildcard: false, // the files that are there now, and no others
    globIgnore: ['**/*.gz'],
    preCompressed: true,
    decorateReply: false,
    cacheControl: false,
    setHeaders(reply, path) {
      void reply.header('content-security-policy', POLICY)
      void reply.header('cache-control', path.startsWith(join(ROOT, 'assets')) ? FOR_EVER : 'no-cache')
    },
  })
}
