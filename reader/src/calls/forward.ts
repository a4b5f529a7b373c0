// The bridges' calls under the reader's address. Answers and codes come through untouched; of several bridges the one
// answers that knows, and lists are joined.

import type { IncomingMessage } from 'node:http'
import { Problem } from '@iot/shared/http/problem'
import type { Description } from '@iot/shared/http/server'
import type { FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify'
import type { Presence } from '../presence.js'
import { ask, textOf } from '../services.js'

const TIMEOUT_MS = 3000
const COMMAND_MS = 130_000 // longer than a bridge takes: its word is the one that counts
const REQUEST_HEADERS = ['authorization', 'content-type', 'idempotency-key']
const RESPONSE_HEADERS = ['content-type', 'retry-after']

const UNREACHABLE = new Problem(503, 'BRIDGE_UNREACHABLE', 'The bridge does not answer; nothing was sent')
const NO_WORD = new Problem(
  504,
  'BRIDGE_TIMEOUT',
  'The bridge went away before it answered: the command may have been sent. Ask again with the same Idempotency-Key',
)

const FORWARDED = ['/devices', '/devices/{deviceId}', '/devices/{deviceId}/command', '/commands/{commandId}']

type Answer = { status: number; headers: IncomingMessage['headers']; text: string }
type Listed = string | Described
type Described = { device_id: string; online: boolean; last_seen: number | null }

/** Returns a function that describes these calls in a bridge's own words, as far as one has answered. */
export function createBridgeDescription([url]: readonly string[]): () => Promise<Description> {
  let known: Description = { paths: {}, components: {} }
  return async () => {
    try {
      const text = await textOf(await ask(url as string, { path: '/openapi.json', timeoutMs: TIMEOUT_MS }))
      const { paths, components } = JSON.parse(text) as Description
      known = {
        paths: Object.fromEntries(Object.entries(paths).filter(([path]) => FORWARDED.includes(path))),
        components,
      }
    } catch {} // what it said last time holds
    return known
  }
}

export const forwardedCalls =
  ({
    urls,
    key,
    presence,
  }: {
    urls: readonly string[]
    key: string | undefined
    presence: Pick<Presence, 'bridgeOf'>
  }): FastifyPluginAsync =>
  async (app) => {
    const headersOf = ({ headers, ip, caller }: FastifyRequest) => {
      const passed = REQUEST_HEADERS.filter((name) => headers[name] !== undefined).map((name) => [name, headers[name]])
      // a read key may be one that the bridges do not know
      const own = caller.mayWrite || key === undefined ? {} : { authorization: `Bearer ${key}` }
      return { ...Object.fromEntries(passed), ...own, 'x-forwarded-for': ip }
    }

    const get = async (url: string, request: FastifyRequest): Promise<Answer> => {
      const asked = { path: request.raw.url ?? '/', headers: headersOf(request), timeoutMs: TIMEOUT_MS }
      return ask(url, asked).then(read).catch(unreachable)
    }

    /** The answer of the first bridge that knows. @throws {Problem} where none does, and one that may know is away */
    const firstThatKnows = async (from: readonly string[], look: (url: string) => Promise<Answer>): Promise<Answer> => {
      const unknown: Answer[] = []
      for (const url of from) {
        const answer = await look(url).catch(unlessUnreachable)
        if (answer && answer.status !== 404) return answer
        if (answer) unknown.push(answer)
      }
      const [first] = unknown
      if (!first || unknown.length < from.length) throw UNREACHABLE
      return first
    }

    const schema = { hide: true } // the bridge describes them
    app.get('/devices', { schema, config: { keepsToPrefix: true } }, async (request, reply) => {
      const { prefix } = request.caller
      const answers = await Promise.all(urls.map((url) => get(url, request)))
      const ofPrefix = (lists: Listed[][]) => sorted(lists.flat()).filter((device) => idOf(device).startsWith(prefix))
      return pass(reply, joined(answers, ofPrefix, answers.length > 1 || prefix !== ''))
    })
    app.get('/devices/:deviceId', { schema }, async (request, reply) => {
      const answers = await Promise.all(urls.map((url) => get(url, request).catch(unlessUnreachable)))
      const there = answers.filter((answer) => answer !== undefined)
      const answer = there.length > 0 ? joined(there, newest) : undefined
      const isSure = there.length === urls.length || answer?.text.includes('"online":true')
      if (!answer || !isSure) throw UNREACHABLE
      return pass(reply, answer)
    })
    app.get('/commands/:commandId', { schema }, async (request, reply) =>
      pass(reply, await firstThatKnows(urls, (url) => get(url, request))),
    )
    app.post<{ Params: { deviceId: string } }>('/devices/:deviceId/command', { schema }, async (request, reply) => {
      const has = presence.bridgeOf(request.params.deviceId)
      const first = has === undefined ? [] : [has]
      const send = async (url: string) => {
        // first a question, so that nothing is on its way to a bridge that does not answer, and done when it wakes up
        await ask(url, { path: '/health/live', timeoutMs: TIMEOUT_MS }).then(textOf).catch(unreachable)
        const sent = {
          method: 'POST',
          path: request.raw.url ?? '/',
          headers: headersOf(request),
          timeoutMs: COMMAND_MS,
        }
        return ask(url, { ...sent, body: request.body as string })
          .then(read)
          .catch(noWord)
      }
      return pass(reply, await firstThatKnows([...new Set([...first, ...urls])], send))
    })
  }

const read = async (response: IncomingMessage): Promise<Answer> => {
  const { statusCode: status = 502, headers } = response
  return { status, headers, text: await textOf(response) }
}
const unreachable = (): never => {
  throw UNREACHABLE
}
/** For whoever asks several: nothing of a bridge that is away. */
const unlessUnreachable = (problem: unknown): undefined => {
  if (problem !== UNREACHABLE) throw problem
}
const noWord = (): never => {
  throw NO_WORD
}

function pass(reply: FastifyReply, { status, headers, text }: Answer) {
  for (const name of RESPONSE_HEADERS) if (headers[name] !== undefined) void reply.header(name, headers[name])
  return reply.code(status).send(text)
}

/** The first answer that is none of 200; else the only one as it is, or what `join` makes of all their bodies. */
function joined<T>(answers: Answer[], join: (bodies: T[]) => unknown, isChanged = answers.length > 1): Answer {
  const [first] = answers
  const other = answers.find(({ status }) => status !== 200)
  if (other || !isChanged) return (other ?? first) as Answer
  return { ...(first as Answer), text: JSON.stringify(join(answers.map(({ text }) => JSON.parse(text) as T))) }
}

const idOf = (device: Listed) => (typeof device === 'string' ? device : device.device_id)
const newest = (found: Described[]) => found.reduce((a, b) => ((b.last_seen ?? 0) > (a.last_seen ?? 0) ? b : a))
/** Each device once, by id. */
function sorted(devices: Listed[]): Listed[] {
  const known = new Map(devices.map((device) => [idOf(device), device]))
  return [...known].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, device]) => device)
}
