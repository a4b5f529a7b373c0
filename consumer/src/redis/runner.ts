// Runs the two scripts on a connection: loaded once for each, all calls of a batch in one write, every reply checked.
import { randomUUID } from 'node:crypto'
import type { Redis } from 'ioredis'
import { Counter } from 'prom-client'
import type { DeviceWork } from '../batch.js'
import type { Refusal } from '../storing.js'
import type { Call } from './calls.js'
import { expectReply, readScriptReply } from './replies.js'
import { historyScript, stateScript } from './scripts.js'

const stale = new Counter({ name: 'iot_stale_writes_total', help: 'last states not set, for a newer one stands there' })

export type Runner = {
  /** @throws when any call was not stored, or may not have been */
  run(calls: Call[]): Promise<Refusal[]>
}

export function createRunner(redis: Redis): Runner {
  const prefix = `${randomUUID()}/`
  let sends = 0
  let areLoaded = false
  redis.on('ready', () => {
    areLoaded = false
  })

  const load = async () => {
    for (const { lua, sha } of [stateScript, historyScript]) expectReply(await redis.script('LOAD', lua), sha)
    areLoaded = true
  }

  /**
   * Sends everything in one write, as a pipeline has it. ioredis's own Pipeline makes a hidden class for each instance,
   * by which the garbage collector keeps every batch until its next full run.
   */
  const send = (calls: Call[], token: string): Promise<unknown>[] => {
    const sent: Promise<unknown>[] = []
    const { stream } = redis
    stream.cork()
    try {
      for (const { state, history } of calls) {
        sent.push(
          redis.evalsha(stateScript.sha, state.keys.length, ...state.keys, ...state.args),
          redis.evalsha(historyScript.sha, history.keys.length, ...history.keys, ...history.args),
        )
      }
      sent.push(redis.echo(token))
    } finally {
      stream.uncork()
    }
    return sent
  }

  /** Replies belong to calls by their order alone: the token behind them shows that none is missing or too many. */
  const runOnce = async (calls: Call[]) => {
    const token = `${prefix}${++sends}`
    const replies = await Promise.allSettled(send(calls, token))
    const echo = replies.pop()
    const refused = readReplies(calls, replies)
    if (echo?.status !== 'fulfilled') throw echo?.reason
    expectReply(echo.value, token)
    return refused
  }

  return {
    async run(calls) {
      if (!areLoaded) await load()
      try {
        return await runOnce(calls)
      } catch (error) {
        if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT')) throw error
        await load() // somebody flushed the scripts
        return runOnce(calls)
      }
    },
  }
}

/** @param replies two for each call: of the states, of the histories */
function readReplies(calls: Call[], replies: PromiseSettledResult<unknown>[]): Refusal[] {
  const refused = new Map<DeviceWork, string>()
  for (const [index, { devices }] of calls.entries()) {
    for (const reply of [replies[2 * index], replies[2 * index + 1]]) {
      if (reply?.status !== 'fulfilled') throw reply?.reason ?? new Error('a call without a reply')
      const read = readScriptReply(reply.value, devices.length)
      stale.inc(read.stale)
      for (const [at, words] of read.refused) {
        const work = devices[at]
        if (work && !refused.has(work)) refused.set(work, words)
      }
    }
  }
  return [...refused].map(([work, error]) => ({ work, error }))
}
