// The two Lua scripts that store devices. A call serves many, so that they share what a call costs on both sides.
// Each device has its own keys and fails alone, in a pcall. With one device a call both scripts would hold on Redis
// Cluster too, for a device's keys of one script share a slot; with MAX_KNOWN_DEVICES they do not.
//
// Both reply with integers and strings in this order, which `replies.ts` checks: how many devices were stored; how many
// were passed over as stale, or of the histories how many readings were cut; then for each refused device its number in
// the call and Redis's words, or NEW_DEVICE.
//
// What a limit needs is in a script only where the limit is set: one that is not costs nothing.
import { createHash } from 'node:crypto'

/** What a device is refused with that is one too many. */
export const NEW_DEVICE = 'NEWDEVICE'

/** Of the bytes of a history: what a member takes beside its text, in a sorted set that is no listpack (measured). */
export const MEMBER_BYTES = 110
const SAMPLE = 256 // members, of which the mean size is taken

export type Limits = {
  /** A last state that is not renewed for so long goes; 0 for never. */
  lastStateSeconds: number
  /** More devices than these are refused; 0 for no limit. */
  knownDevices: number
  /** Of one device; 0 for no limit. */
  historyReadings: number
  historyBytes: number
}

export const NO_LIMITS: Limits = { lastStateSeconds: 0, knownDevices: 0, historyReadings: 0, historyBytes: 0 }

/**
 * Sets last_state, but never back to an older message: beside the hash the guard keeps the position of what it shows. A
 * writer that was frozen, or a call that a frozen Redis finds in its socket later, holds a lower offset.
 *
 * KEYS: for each device last_state and guard; with a limit of devices their counter. ARGV: for each device payload,
 * timestamp, position (see `positionOf`).
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
const stateLua = ({ lastStateSeconds, knownDevices }: Limits): string => `
local result, stale = {0, 0}, 0
local position = '^(%d+):(%d+):(%d+)$'
local function isStale(kept, reached)
  local keptTime, keptPartition, keptOffset = string.match(kept, position)
  local time, partition, offset = string.match(reached, position)
  if keptPartition == partition then return offset < keptOffset end
  return time < keptTime
end
local function store(device, payload, timestamp, reached)
  local state, guard = KEYS[2 * device - 1], KEYS[2 * device]
  local kept = redis.call('SET', guard, reached, 'GET'${lastStateSeconds > 0 ? `, 'EX', ${lastStateSeconds}` : ''})
${when(
  knownDevices > 0,
  `
  if not kept and redis.call('EXISTS', state) == 0 then
    if tonumber(redis.call('GET', KEYS[#KEYS]) or 0) >= ${knownDevices} then
      redis.call('DEL', guard)
      result[#result + 1] = device
      result[#result + 1] = '${NEW_DEVICE}'
      return
    end
    redis.call('INCR', KEYS[#KEYS])
  end`,
)}
  if kept and #kept == #reached and kept > reached and isStale(kept, reached) then
    redis.call('SET', guard, kept${lastStateSeconds > 0 ? `, 'EX', ${lastStateSeconds}` : ''})
    stale = stale + 1
    return
  end
  redis.call('HSET', state, 'payload', payload, 'timestamp', timestamp)
${when(lastStateSeconds > 0, `  redis.call('EXPIRE', state, ${lastStateSeconds})`)}
end
local devices = math.floor(#KEYS / 2)
for device = 1, devices do
  local ok, why = pcall(store, device, ARGV[3 * device - 2], ARGV[3 * device - 1], ARGV[3 * device])
  if not ok then
    result[#result + 1] = device
    result[#result + 1] = type(why) == 'table' and why.err or tostring(why)
  end
end
result[1] = devices - #result / 2 + 1 - stale
result[2] = stale
return result
`

/**
 * Adds messages to histories, trims them, and publishes each message.
 *
 * KEYS: the histories; with a limit of devices their guards behind them. ARGV: retention in seconds; with a limit of bytes
 * the number of the device whose history is measured, 0 for none; then for each device the highest score to trim below,
 * the channel (empty: nothing is published), the number of its messages, and score and member of each.
 *
 * @param adds whether histories take what comes; where they do not, all else is as usual
 */
const historyLua = ({ knownDevices, historyReadings, historyBytes }: Limits, adds: boolean): string => `
local retention, at, result, cut = ARGV[1], ${historyBytes > 0 ? 3 : 2}, {0, 0}, 0
local devices = ${knownDevices > 0 ? '#KEYS / 2' : '#KEYS'}
${when(
  historyBytes > 0,
  `
local function cutBytes(key)
  local count = redis.call('ZCARD', key)
  local sample = redis.call('ZRANDMEMBER', key, ${SAMPLE})
  local bytes = 0
  for _, member in ipairs(sample) do bytes = bytes + #member + ${MEMBER_BYTES} end
  local over = math.min(math.ceil(count - ${historyBytes} * #sample / bytes), count - 1)
  if over > 0 then cut = cut + redis.call('ZREMRANGEBYRANK', key, 0, over - 1) end
end`,
)}
local function store(device, below, channel, from, to)
  local key = KEYS[device]
${when(
  knownDevices > 0,
  `
  if redis.call('EXISTS', KEYS[devices + device]) == 0 then
    result[#result + 1] = device
    result[#result + 1] = '${NEW_DEVICE}'
    return
  end`,
)}
${when(adds, `  for i = from, to, 1000 do redis.call('ZADD', key, unpack(ARGV, i, math.min(i + 999, to))) end`)}
  redis.call('ZREMRANGEBYSCORE', key, '-inf', below)
${when(historyReadings > 0, `  cut = cut + redis.call('ZREMRANGEBYRANK', key, 0, -${historyReadings + 1})`)}
${when(historyBytes > 0, `  if device == tonumber(ARGV[2]) then cutBytes(key) end`)}
  redis.call('EXPIRE', key, retention)
  if channel == '' then return end
  for i = from + 1, to, 2 do redis.call('PUBLISH', channel, ARGV[i]) end
end
for device = 1, devices do
  local last = at + 2 + 2 * tonumber(ARGV[at + 2])
  local ok, why = pcall(store, device, ARGV[at], ARGV[at + 1], at + 3, last)
  if not ok then
    result[#result + 1] = device
    result[#result + 1] = type(why) == 'table' and why.err or tostring(why)
  end
  at = last + 1
end
result[1] = devices - #result / 2 + 1
result[2] = cut
return result
`

/**
 * Removes from histories what is older than the retention, by the earlier of our clock and Redis's own: one alone that
 * jumped ahead empties nothing. Nothing here needs memory, so that a full Redis runs it.
 *
 * KEYS: the histories. ARGV: our time and the retention in seconds. Replies how many readings were removed, and Redis's time.
 */
const TRIM = `
local time = tonumber(redis.call('TIME')[1])
local now = math.min(tonumber(ARGV[1]), time)
local below, removed = '(' .. string.format('%d', now - tonumber(ARGV[2])), 0
for _, key in ipairs(KEYS) do
  local count = redis.pcall('ZREMRANGEBYSCORE', key, '-inf', below)
  if type(count) == 'number' then removed = removed + count end
end
return {removed, time}
`

const when = (isWanted: boolean, lua: string): string => (isWanted ? lua : '')

export type Script = { lua: string; sha: string }
/** The two that a batch is stored with. */
export type Scripts = { state: Script; history: Script }

const script = (lua: string): Script => {
  const text = lua.replace(/\n\n+/g, '\n')
  return { lua: text, sha: createHash('sha1').update(text).digest('hex') }
}

export const storingScripts = (limits: Limits): Scripts => ({
  state: script(stateLua(limits)),
  history: script(historyLua(limits, true)),
})

/** The same for a Redis whose memory is full (7.0 or newer): last states and live updates, and nothing into histories. */
export const sparingScripts = (limits: Limits): Scripts => ({
  state: script(`#!lua flags=allow-oom${stateLua(limits)}`),
  history: script(historyLua(limits, false)),
})

export const trimScript = script(TRIM)
