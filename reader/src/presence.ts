// Who is online, as the bridges say: each is asked once a second for what has changed. Online is who one of them says is;
// who is not, while any of them does not answer, is not known.
import { pause } from '@iot/shared/backoff'
import { createCondition } from '@iot/shared/condition'
import { describe } from '@iot/shared/errors'
import type { Check } from '@iot/shared/health'
import type { Logger } from 'pino'
import { z } from 'zod'
import { ask, textOf } from './services.js'

const PERIOD_MS = 1000
const TIMEOUT_MS = 3000

const answerSchema = z.union([
  z.object({ version: z.string(), online: z.array(z.string()), offline: z.array(z.string()) }),
  z.object({ version: z.string(), all: z.array(z.string()) }),
])

export type Listener = (deviceId: string, online: boolean | null) => void
export type Presence = {
  /** Whether a device is online; null where that is not known. */
  current(deviceId: string): boolean | null
  /** The address of the bridge that has it online. */
  bridgeOf(deviceId: string): string | undefined
  /** Everybody who is online. */
  online(): Iterable<string>
  /** Called with each device that comes or goes, or of which nothing is known any more; returns what ends that. */
  onChange(listener: Listener): () => void
  check: Check
  start(): void
  stop(): void
}

type Bridge = { url: string; version: string | undefined; online: Set<string>; problem: string | null }

/** @param key that the bridges are shown */
export function createPresence(urls: readonly string[], key: string | undefined, logger: Logger): Presence {
  const messages = { wrong: 'a bridge does not answer; retrying', right: 'all bridges answer again' }
  const condition = createCondition('bridge', messages, logger)
  const bridges = urls.map(
    (url): Bridge => ({ url, version: undefined, online: new Set(), problem: `${url}: not asked yet` }),
  )
  const listeners = new Set<Listener>()
  const headers = key === undefined ? {} : { authorization: `Bearer ${key}` }
  let isStopped = false

  const current = (deviceId: string) => {
    if (bridges.some(hasOnline(deviceId))) return true
    return bridges.every(({ problem }) => problem === null) ? false : null
  }

  /** Changes what is known, and tells of those of `ids` for whom that makes a difference. */
  const change = (ids: Iterable<string>, apply: () => void) => {
    const before = new Map(listeners.size > 0 ? [...ids].map((id) => [id, current(id)]) : [])
    apply()
    for (const [id, word] of before) {
      const now = current(id)
      if (now !== word) for (const listener of listeners) listener(id, now)
    }
  }

  const look = async (bridge: Bridge) => {
    const since = bridge.version === undefined ? '' : `?since=${encodeURIComponent(bridge.version)}`
    const response = await ask(bridge.url, { path: `/presence${since}`, headers, timeoutMs: TIMEOUT_MS })
    const text = await textOf(response)
    if (response.statusCode !== 200) throw new Error(`it answers ${response.statusCode}`)
    const answer = answerSchema.parse(JSON.parse(text))
    const isAll = 'all' in answer
    const next = isAll ? new Set(answer.all) : bridge.online
    const ids = isAll ? new Set([...bridge.online, ...answer.all]) : [...answer.online, ...answer.offline]
    change(bridge.problem === null ? ids : new Set([...bridge.online, ...ids]), () => {
      if (!isAll) {
        for (const id of answer.online) next.add(id)
        for (const id of answer.offline) next.delete(id)
      }
      Object.assign(bridge, { online: next, version: answer.version, problem: null })
    })
  }

  const check = () =>
    bridges
      .map(({ problem }) => problem)
      .filter((problem) => problem !== null)
      .join(', ') || null

  const follow = async (bridge: Bridge) => {
    while (!isStopped) {
      await look(bridge).catch((error) => {
        change(bridge.online, () => Object.assign(bridge, { problem: `${bridge.url}: ${describe(error)}` }))
      })
      const problem = check()
      if (problem === null) condition.right()
      else if (bridge.problem !== null) condition.wrong(problem)
      await pause(PERIOD_MS)
    }
  }

  return {
    current,
    bridgeOf: (deviceId) => bridges.find(hasOnline(deviceId))?.url,
    *online() {
      for (const { problem, online } of bridges) if (problem === null) yield* online
    },
    onChange(listener) {
      listeners.add(listener)
      return () => void listeners.delete(listener)
    },
    check,
    start() {
      for (const bridge of bridges) void follow(bridge)
    },
    stop() {
      isStopped = true
    },
  }
}

const hasOnline =
  (deviceId: string) =>
  ({ problem, online }: Bridge): boolean =>
    problem === null && online.has(deviceId)
