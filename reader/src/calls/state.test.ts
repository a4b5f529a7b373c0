// The call itself, with a Redis that is a function.
import { createHttpServer } from '@iot/shared/http/server'
import { pino } from 'pino'
import { afterEach, expect, test } from 'vitest'
import type { Reply } from '../redis/connection.js'
import { stateCalls } from './state.js'

const silent = pino({ level: 'silent' })
const closers: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const close of closers.splice(0)) await close()
})

async function build(replies: Reply[], online: boolean | null = true) {
  const options = {
    keys: [],
    readKeys: [],
    host: '127.0.0.1',
    allowedHosts: [],
    callsPerSecond: 1000,
    trustProxy: false,
  }
  const redis = { read: async () => replies, start() {}, check: () => null, stop() {} }
  const { app } = await createHttpServer(
    { title: 't', description: 'd', version: '1', ...options },
    [stateCalls({ redis, presence: { current: () => online } })],
    {},
    silent,
  )
  closers.push(() => app.close())
  return (headers: Record<string, string> = {}) => app.inject({ url: '/devices/a%22b/state', headers })
}

const GUARD = '1795487129000000:000003:0000000000004711'

test.each<[Reply, string | null]>([
  [GUARD, '"3:4711"'],
  [null, 'null'],
  ['another form', 'null'],
  [new Error('WRONGTYPE'), 'null'],
])('a state with the guard %s', async (guard, position) => {
  const get = await build([guard, ['{ "n": 1.10 }', '1795487129.000001']])
  expect((await get()).body).toBe(
    `{"device_id":"a\\"b","payload":{ "n": 1.10 },"timestamp":1795487129.000001,"position":${position},"online":true}`,
  )
})

test.each<[Reply, number, string]>([
  [[null, null], 404, 'DEVICE_UNKNOWN'],
  [new Error('WRONGTYPE'), 500, 'NOT_READABLE'],
  [['{', '1'], 500, 'NOT_READABLE'],
  [['1', 'soon'], 500, 'NOT_READABLE'],
  [['1', null], 500, 'NOT_READABLE'],
])('what is no state: %o', async (fields, status, code) => {
  const reply = await (await build([GUARD, fields]))()
  expect([reply.statusCode, reply.json().code]).toEqual([status, code])
})

test.each<[boolean | null, string]>([
  [true, '"3:4711:on"'],
  [false, '"3:4711:off"'],
  [null, '"3:4711:unknown"'],
])('online %s has the tag %s', async (online, tag) => {
  const get = await build([GUARD, ['1', '2']], online)
  const { headers } = await get()
  expect(headers).toMatchObject({ etag: tag, 'cache-control': 'no-cache' })
  for (const shown of [tag, `W/${tag}`, `"x", ${tag}`, '*'])
    expect((await get({ 'if-none-match': shown })).statusCode, shown).toBe(304)
  for (const shown of ['"3:4710:on"', tag.replaceAll('"', '')])
    expect((await get({ 'if-none-match': shown })).statusCode, shown).toBe(200)
})
