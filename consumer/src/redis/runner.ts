// Runs the two scripts on a connection: loaded once for each, all calls of a batch in one write, every reply checked.
import { randomUUID } from 'node:crypto'
import type { Redis } from 'ioredis'
import { Counter } from 'prom-client'
import type { DeviceWork } from '../batch.js'
import type { Refusal } from '../storing.js'
import type { Call } from './calls.js'
import { expectReply, readScriptReply } from './replies.js'
import { NEW_DEVICE, type Scripts } from './scripts.js'

const stale = new Counter({ name: 'iot_stale_writes_total', help: 'last states not set, for a newer one stands there' })
const cut = new Counter({
  name: 'iot_history_cut_readings_total',
  help: 'readings removed before their time from histories that reached HISTORY_MAX_READINGS or HISTORY_MAX_BYTES',
})
const strangers = new Counter({
  name: 'iot_unknown_device_messages_total',
  help: 'messages that were not stored, of devices beyond MAX_KNOWN_DEVICES',
})

export type Runner = {
  /** @throws when any call was not stored, or may not have been */
  run(calls: Call[], scripts: Scripts): Promise<Refusal[]>
}

export function createRunner(redis: Redis): Runner {
  const prefix = `${randomUUID()}/`
  let sends = 0
  const loaded = new Set<string>()
  redis.on('ready', () => loaded.clear())

  const load = async ({ state, history }: Scripts) => {
    for (const { lua, sha } of [state, history]) {
      if (loaded.has(sha)) continue
      expectReply(await redis.script('LOAD', lua), sha)
      loaded.add(sha)
    }
  }

  /**
   * Sends everything in one write, as a pipeline has it. ioredis's own Pipeline makes a hidden class for each instance,
   * by which the garbage collector keeps every batch until its next full run.
   */
  const send = (calls: Call[], scripts: Scripts, token: string): Promise<unknown>[] => {
    const sent: Promise<unknown>[] = []
    const { stream } = redis
    stream.cork()
    try {
      for (const { state, history } of calls) {
        sent.push(
          redis.evalsha(scripts.state.sha, state.keys.length, ...state.keys, ...state.args),
          redis.evalsha(scripts.history.sha, history.keys.length, ...history.keys, ...history.args),
        )
      }
      sent.push(redis.echo(token))
    } finally {
      stream.uncork()
    }
    return sent
  }

  /** Replies belong to calls by their order alone: the token behind them shows that none is missing or too many. */
  const runOnce = async (calls: Call[], scripts: Scripts) => {
    const token = `${prefix}${++sends}`
    const replies = await Promise.allSettled(send(calls, scripts, token))
    const echo = replies.pop()
    const refused = readReplies(calls, replies)
    if (echo?.status !== 'fulfilled') throw echo?.reason
    expectReply(echo.value, token)
    return refused
  }

  return {
    async run(calls, scripts) {
      await load(scripts)
      try {
        return await runOnce(calls, scripts)
      } catch (error) {
        if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT')) throw error
        loaded.clear() // somebody flushed the scripts
        await load(scripts)
        return runOnce(calls, scripts)
      }
    },
  }
}

/** @param replies two for each call: of the states, of the histories */
function readReplies(calls: Call[], replies: PromiseSettledResult<unknown>[]): Refusal[] {
  const refused = new Map<DeviceWork, string>()
  for (const [index, { devices }] of calls.entries()) {
    for (const [offset, counter] of [stale, cut].entries()) {
      const reply = replies[2 * index + offset]
      if (reply?.status !== 'fulfilled') throw reply?.reason ?? new Error('a call without a reply')
      const read = readScriptReply(reply.value, devices.length, counter === stale)
      counter.inc(read.count)
      for (const [at, words] of read.refused) {
        const work = devices[at]
        if (!work || refused.has(work)) continue
        if (words !== NEW_DEVICE) refused.set(work, words)
        else if (counter === cut) strangers.inc(work.messages.length)
      }
    }
  }
  return [...refused].map(([work, error]) => ({ work, error }))
}
