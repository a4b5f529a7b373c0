// What a reading takes of Redis: bytes in a history, and time in the script, for histories and messages of several sizes and
// several limits of the compact form (listpack). What a device takes beside its history.

import { NO_LIMITS, storingScripts } from '@iot/consumer/redis/scripts'
import { encodeMessage, guardKey, historyKey, lastStateKey, positionOf } from '@iot/shared/contract'
import type { Redis } from 'ioredis'
import { pause, type Rig } from './rig.js'

const HISTORIES = [5, 60, 300, 3600, 18_000]
const PAYLOADS = [50, 140, 1000]
/** `zset-max-listpack-entries`; `zset-max-listpack-value` is 64 in the first, as Redis has it, so that no message is compact. */
const ENTRIES = [0, 128, 320, 512]
const VALUE_BYTES = 4096 // of a member
const READINGS = 60_000 // of a cell
const BLOCKS = 10 // of the measured calls, of which the quickest counts: what disturbs the machine makes others slow
const WRITES = 10 // calls in a block
const CALL_DEVICES = 100
const RETENTION_S = 18_000
const SETTLE_MS = 3000 // until Redis has given back what a connection had buffered
const START_S = 1_700_000_000

export type MemoryRow = {
  'payload B': number
  'message B': number
  readings: number
  'listpack entries': string
  'B a reading': number
  'of the message': number
  'script us a reading': number
}

const { history } = storingScripts(NO_LIMITS)

const idOf = (device: number) => `sensor-${String(device).padStart(6, '0')}`
const payloadOf = (bytes: number, seq: number) => {
  const head = `{"seq":${String(seq).padStart(8, '0')},"pad":"`
  return `${head}${'x'.repeat(Math.max(bytes - head.length - 2, 0))}"}`
}
const textOf = (device: number, seq: number, bytes: number) =>
  encodeMessage(idOf(device), payloadOf(bytes, seq), String(START_S + seq))

async function usedBytes(redis: Redis): Promise<number> {
  return Number(/^used_memory:(\d+)/m.exec(await redis.info('memory'))?.[1])
}

/** Adds one reading to each of the devices, as the consumer does. */
async function write(redis: Redis, devices: number[], seq: number, bytes: number, kept: number): Promise<void> {
  const below = `(${START_S + seq - kept + 1}`
  const args = devices.flatMap((device) => [below, '', 1, START_S + seq, textOf(device, seq, bytes)])
  const keys = devices.map((device) => historyKey(idOf(device)))
  await redis.evalsha(history.sha, keys.length, ...keys, RETENTION_S, ...args)
}

async function fill(redis: Redis, devices: number, readings: number, bytes: number): Promise<void> {
  for (let device = 0; device < devices; device++) {
    const pipeline = redis.pipeline()
    for (let from = 0; from < readings; from += 500) {
      const seqs = Array.from({ length: Math.min(500, readings - from) }, (_, index) => from + index)
      const members = seqs.flatMap((seq) => [START_S + seq, textOf(device, seq, bytes)])
      pipeline.zadd(historyKey(idOf(device)), ...members)
    }
    pipeline.expire(historyKey(idOf(device)), RETENTION_S)
    await pipeline.exec()
  }
}

async function cell(redis: Redis, readings: number, bytes: number, entries: number): Promise<MemoryRow> {
  await redis.config('SET', 'zset-max-listpack-entries', String(entries || 128))
  await redis.config('SET', 'zset-max-listpack-value', String(entries ? VALUE_BYTES : 64))
  await redis.flushall('SYNC')
  const devices = Math.ceil(READINGS / readings)
  const before = await usedBytes(redis)
  await fill(redis, devices, readings, bytes)
  const after = await usedBytes(redis)
  await redis.script('LOAD', history.lua)
  const each = Math.min(devices, CALL_DEVICES)
  let quickest = Number.POSITIVE_INFINITY
  for (let block = 0; block < BLOCKS; block++) {
    await redis.config('RESETSTAT')
    for (let call = block * WRITES; call < (block + 1) * WRITES; call++) {
      // one group after another, each its own sequence: a history keeps its length
      const first = (call * each) % Math.max(devices - each + 1, 1)
      const group = Array.from({ length: each }, (_, index) => first + index)
      await write(redis, group, readings + Math.floor((call * each) / devices), bytes, readings)
    }
    const spent = /cmdstat_evalsha:calls=\d+,usec=(\d+)/.exec(await redis.info('commandstats'))?.[1]
    quickest = Math.min(quickest, Number(spent) / (WRITES * each))
  }
  const perReading = (after - before) / (devices * readings)
  const message = textOf(0, 0, bytes).length
  return {
    'payload B': bytes,
    'message B': message,
    readings,
    'listpack entries': entries ? String(entries) : 'as Redis has it',
    'B a reading': Math.round(perReading),
    'of the message': Math.round((100 * perReading) / message) / 100,
    'script us a reading': Math.round(100 * quickest) / 100,
  }
}

/** Bytes of a device's last state and of its guard, for each size of payload and limit of the compact hash. */
async function deviceRows(redis: Redis) {
  const rows: { 'payload B': number; 'hash-max-listpack-value': number; 'last_state B': number; 'guard B': number }[] =
    []
  for (const bytes of PAYLOADS) {
    for (const value of [64, 1024]) {
      await redis.config('SET', 'hash-max-listpack-value', String(value))
      await redis.flushall('SYNC')
      const devices = Array.from({ length: 10_000 }, (_, device) => device)
      await pause(SETTLE_MS)
      const before = await usedBytes(redis)
      await Promise.all(devices.map((device) => redis.set(guardKey(idOf(device)), positionOf(START_S, 0, '123456789'))))
      await pause(SETTLE_MS)
      const guards = await usedBytes(redis)
      const hash = { payload: payloadOf(bytes, 0), timestamp: String(START_S) }
      await Promise.all(devices.map((device) => redis.hset(lastStateKey(idOf(device)), hash)))
      await pause(SETTLE_MS)
      const all = await usedBytes(redis)
      rows.push({
        'payload B': bytes,
        'hash-max-listpack-value': value,
        'last_state B': Math.round((all - guards) / devices.length),
        'guard B': Math.round((guards - before) / devices.length),
      })
    }
  }
  return rows
}

export async function memory({ redis }: Rig, say: (line: string) => void) {
  const server = await redis.info('server')
  const named = (name: string) => new RegExp(`^${name}_version:(\\S+)`, 'm').exec(server)?.[1]
  const version = named('valkey') ?? named('redis')
  say(`Redis or Valkey ${version}`)
  const rows: MemoryRow[] = []
  for (const bytes of PAYLOADS)
    for (const readings of HISTORIES)
      for (const entries of ENTRIES) rows.push(await cell(redis, readings, bytes, entries))
  return { version, rows, devices: await deviceRows(redis) }
}
