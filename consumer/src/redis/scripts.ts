// The two Lua scripts that store devices. A call serves many, so that they share what a call costs on both sides.
// Each device has its own keys and fails alone, in a pcall. With one device a call both scripts would hold on Redis
// Cluster too, for a device's keys of one script share a slot.
//
// Both reply with integers and strings in this order, which `replies.ts` checks: how many devices were stored, how many
// were passed over as stale, then for each refused device its number in the call and Redis's words.
import { createHash } from 'node:crypto'

/**
 * Sets last_state, but never back to an older message: beside the hash the guard keeps the position of what it shows. A
 * writer that was frozen, or a call that a frozen Redis finds in its socket later, holds a lower offset.
 *
 * KEYS: for each device last_state and guard. ARGV: for each device payload, timestamp, position (see `positionOf`).
 *
 *     position in the guard            new position                          last_state
 *     ------------------------------   -----------------------------------   ------------
 *     none                             any                                   set
 *     another length (another format)  any                                   set
 *     any                              greater or equal as text              set
 *     same partition, greater offset   older or equal timestamp              stale, kept
 *     same partition, lower offset     older timestamp (clock set back)      set
 *     another partition                older timestamp                       stale, kept
 *     another partition                equal timestamp                       set
 *
 * The third row is nearly every message: a newer timestamp, or the same and a later offset. A newer timestamp with a
 * lower offset is a topic that was created again. Where last_state is kept the guard is too.
 */
const STATE = `
local result, stale = {0, 0}, 0
local position = '^(%d+):(%d+):(%d+)$'
local function isStale(kept, reached)
  local keptTime, keptPartition, keptOffset = string.match(kept, position)
  local time, partition, offset = string.match(reached, position)
  if keptPartition == partition then return offset < keptOffset end
  return time < keptTime
end
local function store(device, payload, timestamp, reached)
  local guard = KEYS[2 * device]
  local kept = redis.call('SET', guard, reached, 'GET')
  if kept and #kept == #reached and kept > reached and isStale(kept, reached) then
    redis.call('SET', guard, kept)
    stale = stale + 1
    return
  end
  redis.call('HSET', KEYS[2 * device - 1], 'payload', payload, 'timestamp', timestamp)
end
for device = 1, #KEYS / 2 do
  local ok, why = pcall(store, device, ARGV[3 * device - 2], ARGV[3 * device - 1], ARGV[3 * device])
  if not ok then
    result[#result + 1] = device
    result[#result + 1] = type(why) == 'table' and why.err or tostring(why)
  end
end
result[1] = (#KEYS - #result) / 2 + 1 - stale
result[2] = stale
return result
`

/**
 * Adds messages to histories, trims them, and publishes each message.
 *
 * KEYS: the histories. ARGV: retention in seconds, then for each device the highest score to trim below, the channel (empty:
 * nothing is published), the number of its messages, and score and member of each.
 */
const HISTORY = `
local retention, at, result = ARGV[1], 2, {0, 0}
local function store(key, below, channel, from, to)
  for i = from, to, 1000 do redis.call('ZADD', key, unpack(ARGV, i, math.min(i + 999, to))) end
  redis.call('ZREMRANGEBYSCORE', key, '-inf', below)
  redis.call('EXPIRE', key, retention)
  if channel == '' then return end
  for i = from + 1, to, 2 do redis.call('PUBLISH', channel, ARGV[i]) end
end
for device = 1, #KEYS do
  local last = at + 2 + 2 * tonumber(ARGV[at + 2])
  local ok, why = pcall(store, KEYS[device], ARGV[at], ARGV[at + 1], at + 3, last)
  if not ok then
    result[#result + 1] = device
    result[#result + 1] = type(why) == 'table' and why.err or tostring(why)
  end
  at = last + 1
end
result[1] = #KEYS - #result / 2 + 1
return result
`

export type Script = { lua: string; sha: string }

const script = (lua: string): Script => ({ lua, sha: createHash('sha1').update(lua).digest('hex') })

export const stateScript = script(STATE)
export const historyScript = script(HISTORY)
