// Last states as they stand in Redis, each with the position of the record that it shows.
import { guardKey, isJson, lastStateKey, recordOf } from '@iot/shared/contract'
import type { Command, RedisReader, Reply } from './connection.js'

const TIMESTAMP = /^(0|[1-9]\d*)(\.\d+)?$/

/**
 * `payload` and `timestamp` are JSON texts as they were written; `position` is partition and offset, such as `3:4711`, null
 * where the consumer left none. It is never newer than the payload.
 */
export type State = { payload: string; timestamp: string; position: string | null }

/** A device's state; null where there is none, `unreadable` where its keys hold something else. */
export type Found = State | null | 'unreadable'

/** @throws {Problem} when Redis does not answer */
export async function readStates({ read }: Pick<RedisReader, 'read'>, ids: readonly string[]): Promise<Found[]> {
  // the guard first: it may be older than the state then, but never newer, and a feed from there on misses nothing
  const commands = ids.flatMap((id): Command[] => [
    ['GET', guardKey(id)],
    ['HMGET', lastStateKey(id), 'payload', 'timestamp'],
  ])
  const replies = await read(commands)
  return ids.map((_, index) => stateOf(replies[2 * index], replies[2 * index + 1]))
}

function stateOf(guard: Reply, fields: Reply): Found {
  if (!Array.isArray(fields)) return 'unreadable'
  const [payload, timestamp] = fields as (string | null)[]
  if (payload == null && timestamp == null) return null
  if (payload == null || timestamp == null || !TIMESTAMP.test(timestamp) || !isJson(payload)) return 'unreadable'
  return { payload, timestamp, position: recordOf(typeof guard === 'string' ? guard : null) }
}
