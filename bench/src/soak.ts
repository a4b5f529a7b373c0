// The platform for many retentions at a steady rate: what would grow with time shows, a row for each retention.
import { readdirSync } from 'node:fs'
import { HISTORIES } from '@iot/consumer/redis/keys'
import { DEVICES, endToEnd, platform } from './latency.js'
import { type Rig, residentMb, usage } from './rig.js'

const SAMPLED = 100 // histories

export type Soak = { seconds: number; rate: number; retentionSeconds: number }
type Row = Record<string, number>
type Pids = Record<string, number>

const descriptors = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length
const rounded = (value: number, digits = 1): number => Number(value.toFixed(digits))

/** Of some histories: readings for each that should be there, and the longest time between first and last. */
async function lookAtHistories({ redis }: Rig, { rate, retentionSeconds }: Soak) {
  const [, keys] = await redis.scan('0', 'MATCH', HISTORIES, 'COUNT', 10 * SAMPLED)
  let [readings, longest] = [0, 0]
  for (const key of keys) {
    const [count, first, last] = await Promise.all([
      redis.zcard(key),
      redis.zrange(key, '0', '0', 'WITHSCORES'),
      redis.zrange(key, '-1', '-1', 'WITHSCORES'),
    ])
    readings += count
    longest = Math.max(longest, Number(last[1]) - Number(first[1]))
  }
  const due = Math.floor((rate * retentionSeconds) / DEVICES) + 1 // both ends are in it
  return { share: readings / (keys.length * due), longest }
}

/** One row for each retention that has passed, and what became of all the updates. */
export async function soak(rig: Rig, options: Soak, say: (line: string) => void) {
  const { seconds, rate, retentionSeconds } = options
  const rows: Row[] = []
  let before: Row = {}
  const sample = async (pids: Pids) => {
    const cpu = Object.fromEntries(Object.entries(pids).map(([name, pid]) => [name, usage(pid).cpuS]))
    const stored = await rig.updates()
    const info = await rig.redis.info('memory')
    const { share, longest } = await lookAtHistories(rig, options)
    const row: Row = { retention: rows.length + 1 }
    row['Redis MB'] = rounded(Number(/^used_memory:(\d+)/m.exec(info)?.[1]) / 1e6)
    row['readings kept, of those due'] = rounded(share, 3)
    row['longest history s'] = longest
    for (const name of ['platform bridge', 'platform consumer', 'redis']) {
      const pid = pids[name] ?? 0
      const messages = stored - (before.stored ?? 0)
      row[`${name} us a message`] = rounded((((cpu[name] ?? 0) - (before[name] ?? 0)) / messages) * 1e6)
      row[`${name} MB`] = residentMb(pid)
      row[`${name} descriptors`] = descriptors(pid)
    }
    before = { ...cpu, stored }
    rows.push(row)
    say(JSON.stringify(row))
  }
  const [latency] = await endToEnd(
    rig,
    rate,
    seconds,
    (...args) =>
      platform(...args).map((one) => ({
        ...one,
        env: { ...one.env, HISTORY_RETENTION_SECONDS: String(retentionSeconds) },
      })),
    (pids) => {
      const timer = setInterval(() => void sample(pids).catch((error) => say(String(error))), retentionSeconds * 1000)
      return () => clearInterval(timer)
    },
  )
  return { latency, rows }
}
