// The devices and an onlooker, as a process: readings at a fixed rate whatever comes of them, and the time until the
// live update of every tenth device. Time counts from when a reading was due, so that a late sender hides nothing.
import { env } from 'node:process'
import { updatesChannel } from '@iot/shared/contract'
import { Redis } from 'ioredis'
import { createFeed, deviceId } from './load.js'

const CONNECTIONS = 10
const WATCHED = 10 // one device in so many
const WARM_UP_MS = 3000
const LATE_MS = 10_000 // how long updates may still come after the last reading

process.once('disconnect', () => process.exit()) // the benchmark has ended
const { MQTT_PORT, REDIS_PORT, PREFIX } = env
const [rate, seconds, devices] = [Number(env.RATE), Number(env.SECONDS), Number(env.DEVICES)]
const now = () => performance.timeOrigin + performance.now()
const feeds = await Promise.all(
  Array.from({ length: CONNECTIONS }, (_, index) => createFeed(Number(MQTT_PORT), `fleet-${PREFIX}-${index}`)),
)
const redis = new Redis(Number(REDIS_PORT))
const watched = Array.from({ length: Math.ceil(devices / WATCHED) }, (_, index) => deviceId(index * WATCHED))
await redis.subscribe(...watched.map(updatesChannel))

const latencies: number[] = []
let fromMs = Number.POSITIVE_INFINITY
let arrived = false
redis.on('message', (_channel, text) => {
  const dueMs = Number(/"t": ?([\d.]+)/.exec(text)?.[1])
  arrived = true
  if (dueMs >= fromMs) latencies.push(now() - dueMs)
})
const send = (seq: number, dueMs: number) => {
  const payload = `{"t":${dueMs.toFixed(3)},"seq":${String(seq).padStart(9, '1')},"temperature":21.37,"status":"ok"}`
  feeds[seq % CONNECTIONS]?.publish(`${PREFIX}/${deviceId(seq % devices)}/data`, payload)
}
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

for (let seq = 0; !arrived; await pause(100)) send(WATCHED * seq++, now())
process.send?.('flows')
const startMs = Math.ceil(now())
fromMs = startMs + WARM_UP_MS
const total = rate * (seconds + WARM_UP_MS / 1000)
let expected = 0
for (let seq = 0; seq < total; await pause(1)) {
  for (const dueBefore = now(); seq < total; seq++) {
    const dueMs = Number((startMs + (seq * 1000) / rate).toFixed(3))
    if (dueMs > dueBefore) break
    if (dueMs >= fromMs && (seq % devices) % WATCHED === 0) expected++
    send(seq, dueMs)
  }
}
const endMs = now()
while (latencies.length < expected && now() < endMs + LATE_MS) await pause(10)
const quarter = Math.floor(latencies.length / 4)
const of = (share: number, values: number[]) =>
  values[Math.min(Math.floor(share * values.length), values.length - 1)] ?? 0
const sorted = latencies.toSorted((a, b) => a - b)
process.send?.({
  expected,
  seen: latencies.length,
  p50: of(0.5, sorted),
  p95: of(0.95, sorted),
  p99: of(0.99, sorted),
  max: of(1, sorted),
  firstQuarter: of(
    0.5,
    latencies.slice(0, quarter).toSorted((a, b) => a - b),
  ),
  lastQuarter: of(
    0.5,
    latencies.slice(-quarter).toSorted((a, b) => a - b),
  ),
})
