// The reader's calls: readings come out as they went in, page by page or whole, and nothing is missing or given twice.
import { once } from 'node:events'
import { get as httpGet, type IncomingMessage } from 'node:http'
import { getPriority } from 'node:os'
import { historyKey, lastStateKey } from '@iot/shared/contract'
import type { MqttClient } from 'mqtt'
import { beforeAll, expect, inject, test } from 'vitest'
import { usePlatform } from './fixture.js'
import { eventually } from './platform.js'
import { createProxy } from './proxy.js'

const KEY = 'a-full-key-0123456789'

const READ_KEY = 'a-read-key-0123456789'
const SITE_KEY = 'a-site-key-0123456789'
const readerKeys = { API_KEY: KEY, API_READ_KEY: `${READ_KEY}, ${SITE_KEY}:site-a-` }

const fixture = usePlatform({
  start: ({ up }) => up({ bridge: { API_KEY: KEY }, reader: readerKeys }),
})
let device: MqttClient
beforeAll(async () => {
  device = await fixture.platform.device()
})

const startReader = async (env: NodeJS.ProcessEnv = {}) => {
  await fixture.platform.startReader({ ...readerKeys, ...env })
  await fixture.platform.reader.ready()
}

const call = async (path: string, headers: Record<string, string> = {}) => {
  const reply = await fetch(fixture.platform.reader.url + path, {
    headers: { authorization: `Bearer ${KEY}`, ...headers },
  })
  return { status: reply.status, headers: reply.headers, text: await reply.text() }
}
const json = async (path: string) => JSON.parse((await call(path)).text)
const publish = (id: string, payload: string) =>
  device.publishAsync(`${fixture.platform.prefix}/${id}/data`, payload, { qos: 1 })
const stored = (id: string) =>
  eventually(async () => (await call(`/devices/${id}/state`)).status === 200, `${id} has a state`)

test('the digits that a device wrote come out of every call, and lines stay whole', async () => {
  const id = fixture.platform.id('digits')
  const payload = '{\n  "serial": 12345678901234567890,\r\n  "t": 1.10, "e": 1E+3,\n  "text": "=1+1\\n, \\"x\\""\n}'
  await publish(id, payload)
  await stored(id)
  const state = await call(`/devices/${id}/state`)
  const { timestamp, position } = JSON.parse(state.text)
  expect(state.text).toBe(
    `{"device_id":"${id}","payload":${payload},"timestamp":${timestamp},"position":"${position}","online":false}`,
  )
  const [record] = await fixture.platform.records(1, undefined, ({ key }) => String(key) === id)
  expect(position).toBe(`${record?.partition}:${record?.offset}`)

  const member = `{"device_id":"${id}","payload":${payload},"timestamp":${timestamp}}`
  const history = await call(`/devices/${id}/history`)
  const around = `{"device_id":"${id}","from":null,"to":null,"order":"desc","messages":[`
  expect(history.text).toBe(`${around}${member}],"next":null}`)
  const onOneLine = (text: string) => text.replaceAll(/[\r\n]/g, ' ')
  const lines = await call(`/devices/${id}/history`, { accept: 'application/x-ndjson' })
  expect(lines.text).toBe(`${onOneLine(member)}\n`)
  const whole = `"${onOneLine(payload).replaceAll('"', '""')}"`
  expect((await call(`/devices/${id}/history?format=csv`)).text).toBe(
    `device_id,timestamp,payload\r\n${id},${timestamp},${whole}\r\n`,
  )
  expect((await call(`/devices/${id}/history?format=csv&fields=serial,t,e,text,none`)).text).toBe(
    `device_id,timestamp,serial,t,e,text,none\r\n${id},${timestamp},12345678901234567890,1.10,1E+3,"'=1+1\n, ""x""",\r\n`,
  )
  const series = await call(`/devices/${id}/series?fields=serial,t,e&last=1m&every=1h`)
  expect(series.text).toMatch(/"serial":\{"min":\[(null,)?12345678901234567890\],/)
  expect(series.text).toMatch(/"last":\[(null,)?1\.10\],"count":\[(0,)?1\]\},"e":\{"min":\[(null,)?1E\+3\]/)
})

test('a state that has not changed is not sent again', async () => {
  const id = fixture.platform.id('same')
  await publish(id, '1')
  await stored(id)
  const { headers } = await call(`/devices/${id}/state`)
  const tag = headers.get('etag') ?? ''
  expect(tag).toMatch(/^"\d+:\d+:off"$/)
  const again = await call(`/devices/${id}/state`, { 'if-none-match': tag })
  expect([again.status, again.text]).toEqual([304, ''])
  await publish(id, '2')
  await eventually(
    async () => (await call(`/devices/${id}/state`, { 'if-none-match': tag })).text.includes('"payload":2'),
    'the next state',
  )
})

/** Walks a history to its end; `between` runs after each page. */
async function walk(path: string, between: () => unknown = () => {}): Promise<string[]> {
  const found: string[] = []
  for (let cursor = ''; ; ) {
    const page = await json(`${path}${cursor}`)
    found.push(...page.messages.map(({ payload }: { payload: string }) => payload))
    if (page.next === null) return found
    await between()
    cursor = `&cursor=${page.next}`
  }
}

test.each([
  'asc',
  'desc',
])('a walk (%s) gives each member once, while others arrive late and the oldest are trimmed', async (order) => {
  const { redis, id: named } = fixture.platform
  const id = named(`walk-${order}`)
  const start = 1_700_000_000
  const member = (second: number, name: string) =>
    `{"device_id":"${id}","payload":"${second}-${name}","timestamp":${second}}`
  const add = (entries: [number, string][]) =>
    redis.zadd(historyKey(id), ...entries.flatMap(([second, name]) => [second, member(second, name)]))
  const standing: [number, string][] = []
  for (let index = 0; index < 600; index++) standing.push([start + 100 + Math.floor(index / 3), `s${index}`])
  for (let index = 0; index < 500; index++) standing.push([start + 150, `busy${String(index).padStart(3, '0')}`])
  const trimmed = Array.from({ length: 100 }, (_, second): [number, string] => [start + second, 'old'])
  await redis.hset(lastStateKey(id), 'payload', '1', 'timestamp', String(start))
  await add([...standing, ...trimmed])

  let round = 0
  const found = await walk(`/devices/${id}/history?order=${order}&limit=70`, async () => {
    round++
    await add([
      [start + 150, `busy${String(20 * round).padStart(3, '0')}-late`],
      [start + 150, `a${round}`],
      [start + 100 + 10 * round, 'late'],
      [start + 1000 + round, 'new'],
    ])
    await redis.zremrangebyscore(historyKey(id), '-inf', start + 10 * round)
  })
  expect(round).toBeGreaterThan(10)
  expect(new Set(found).size).toBe(found.length)
  const seen = new Set(found)
  expect(standing.filter(([second, name]) => second > start + 10 * round && !seen.has(`${second}-${name}`))).toEqual([])
  await redis.del(historyKey(id), lastStateKey(id))
})

test('a range is half open, and what has no readings in it is not unknown', async () => {
  const { redis, id: named } = fixture.platform
  const id = named('range')
  for (const second of [10, 11, 12, 13])
    await redis.zadd(historyKey(id), second, `{"device_id":"${id}","payload":${second},"timestamp":${second}}`)
  await redis.hset(lastStateKey(id), 'payload', '13', 'timestamp', '13')
  const payloads = async (query: string) =>
    (await json(`/devices/${id}/history?${query}`)).messages.map(({ payload }: { payload: number }) => payload)
  expect(await payloads('from=11&to=13')).toEqual([12, 11])
  expect(await payloads('from=1970-01-01T00:00:11Z&to=1970-01-01T01:00:13.5%2B01:00&order=asc')).toEqual([11, 12, 13])
  expect(await payloads('last=15m')).toEqual([])
  expect((await call(`/devices/${named('nobody')}/history`)).status).toBe(404)
  expect((await call(`/devices/${named('nobody')}/state`)).status).toBe(404)
  await redis.hset(lastStateKey(id), 'payload', 'no JSON')
  await redis.set(historyKey(id), 'a string')
  for (const what of ['state', 'history', 'history?format=csv']) {
    const { status, text } = await call(`/devices/${id}/${what}`)
    expect([status, JSON.parse(text).code], what).toEqual([500, 'NOT_READABLE'])
  }
  await redis.del(historyKey(id), lastStateKey(id))
})

test('a series has every bucket of its range, and an error names the step that fits', async () => {
  const { redis, id: named } = fixture.platform
  const id = named('series')
  const member = (second: number) =>
    `{"device_id":"${id}","payload":{"t":${second}.50,"in":{"v":1}},"timestamp":${second}}`
  for (let second = 1000; second < 2000; second++) await redis.zadd(historyKey(id), second, member(second))
  const series = await json(`/devices/${id}/series?fields=t,in.v,none&from=1005&to=2005&every=500s`)
  expect(series).toMatchObject({ device_id: id, every: 500, time: [1000, 1500, 2000] })
  expect(series.fields.t).toEqual({
    min: [1005.5, 1500.5, null],
    max: [1499.5, 1999.5, null],
    avg: [1252.5, 1750, null],
    last: [1499.5, 1999.5, null],
    count: [495, 500, 0],
  })
  expect(series.fields.none.count).toEqual([0, 0, 0])
  expect((await json(`/devices/${id}/series?fields=t&from=1000&to=2000`)).every).toBe(2)
  const refused = await call(`/devices/${id}/series?fields=t&from=0&to=36000&every=1s`)
  const { code, message } = JSON.parse(refused.text)
  expect([refused.status, code, message]).toEqual([400, 'TOO_MANY_BUCKETS', expect.stringContaining('every=30s')])
  expect((await call(`/devices/${id}/series?fields=t&from=0&to=36000&every=30s`)).status).toBe(200)
  expect(await json(`/devices/${id}/series/fields?from=0`)).toEqual(['in.v', 't'])
  expect((await call(`/devices/${named('nobody')}/series?fields=t`)).status).toBe(404)
  await redis.del(historyKey(id))
})

test('all devices that are known: filtered, counted, page by page, and as lines', async () => {
  const { platform } = fixture
  const { redis, run } = platform
  const now = Math.floor(Date.now() / 1000)
  const ids = Array.from({ length: 300 }, (_, index) => platform.id(`states-${String(index).padStart(3, '0')}`))
  for (const [index, id] of ids.entries())
    await redis.hset(lastStateKey(id), 'payload', '{"n":1.10}', 'timestamp', String(now - (index < 20 ? 3600 : 0)))
  const online = platform.id('states-online')
  await device.publishAsync(`${platform.prefix}/${online}/hello`, '', { qos: 1 })
  const mine = `prefix=states-&contains=${run}`
  await platform.reader.stop()
  await startReader() // the first thing it does is to look for devices
  await eventually(async () => (await json(`/states?${mine}`)).matched === 301, 'all of them are known')

  const found: string[] = []
  let page = await json(`/states?${mine}&limit=70`)
  for (; ; page = await json(`/states?${mine}&limit=70&after=${page.next}`)) {
    found.push(...page.devices.map(({ device_id }: { device_id: string }) => device_id))
    expect(page).toMatchObject({ matched: 301, total_is_exact: true })
    if (page.next === null) break
  }
  expect(found).toEqual([...ids, online])
  expect((await json(`/states?${mine}&offset=298`)).devices).toHaveLength(3)
  expect(await json(`/states?${mine}&offset=999`)).toMatchObject({ devices: [], next: null })
  expect((await call(`/states?${mine}&limit=1`)).text).toContain(
    `"devices":[{"device_id":"${ids[0]}","payload":{"n":1.10},"timestamp":${now - 3600},"position":null,"online":false}]`,
  )
  const matched = async (query: string) => (await json(`/states?${mine}&${query}`)).matched
  expect(await matched('online=true')).toBe(1)
  expect(await matched('online=false')).toBe(300)
  expect(await matched('silent_for=30m')).toBe(21)
  await redis.hset(lastStateKey(ids[0] as string), 'timestamp', String(now))
  expect(await matched('silent_for=30m')).toBe(20)

  await redis.del(lastStateKey(ids[1] as string))
  await redis.set(lastStateKey(ids[1] as string), 'another type')
  const lines = (await call(`/states?${mine}&format=ndjson`)).text.trimEnd().split('\n')
  expect(lines).toHaveLength(301)
  expect(lines[1]).toBe(`{"device_id":"${ids[1]}","error":"NOT_READABLE"}`)
  const csv = (await call(`/states?${mine}&fields=n`, { accept: 'text/csv' })).text.split('\r\n')
  expect(csv.slice(0, 2)).toEqual(['device_id,timestamp,n', `${ids[0]},${now},1.10`])
  await redis.del(...ids.map(lastStateKey))
})

/** A history of 10 KB a second: more of it than sockets hold, from 1,000 on. */
const fill = async (id: string, count: number) => {
  const member = (second: number) => `{"device_id":"${id}","payload":"${'x'.repeat(10_000)}","timestamp":${second}}`
  for (let start = 0; start < count; start += 100) {
    const seconds = Array.from({ length: 100 }, (_, index) => start + index)
    await fixture.platform.redis.zadd(historyKey(id), ...seconds.flatMap((second) => [second, member(second)]))
  }
}

const open = async (path: string): Promise<IncomingMessage> => {
  const request = httpGet(fixture.platform.reader.url + path, { headers: { authorization: `Bearer ${KEY}` } })
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  return response
}

test('an export is whole or visibly torn; those who do not read are bounded, and leave no trace', async () => {
  const { redis, id: named, reader } = fixture.platform
  const id = named('export')
  await fill(id, 2000)
  const path = `/devices/${id}/history?format=ndjson`
  const lines = (await call(path)).text.trimEnd().split('\n')
  expect(lines.map((line) => JSON.parse(line).timestamp)).toEqual(Array.from({ length: 2000 }, (_, second) => second))

  const idle = await Promise.all(Array.from({ length: 36 }, () => open(path)))
  const refused = await call(path)
  expect([refused.status, JSON.parse(refused.text).code, refused.headers.get('retry-after')]).toEqual([
    503,
    'BUSY',
    '1',
  ])
  expect((await call(`/devices/${named('nobody')}/state`)).status).toBe(404)
  expect(reader.rssMb()).toBeLessThan(384)
  const torn = idle.pop() as IncomingMessage
  for (const response of idle) response.destroy()
  await eventually(async () => (await call(`${path}&limit=1`)).status === 200, 'room again')

  await redis.set(historyKey(id), 'no history any more') // at once: one that is gone would just be at its end
  torn.resume()
  await expect(once(torn, 'end')).rejects.toThrow(/aborted/)
  await redis.del(historyKey(id))
})

test("the bridge's calls have the same answers here, and the description has them all", async () => {
  const { platform } = fixture
  const id = platform.id('forward')
  await device.publishAsync(`${platform.prefix}/${id}/hello`, '', { qos: 1 })
  await eventually(async () => (await call(`/devices/${id}`)).text.includes('"online":true'), 'online')
  await publish(id, '1')
  await stored(id)
  await eventually(async () => (await json(`/devices/${id}/state`)).online === true, 'online in its state')
  const headers = { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' }
  const both = async (path: string, init: RequestInit = {}) => {
    const ask = async (url: string) => {
      const reply = await fetch(url + path, { headers, ...init })
      return [reply.status, reply.headers.get('content-type'), await reply.text()]
    }
    const [own, forwarded] = [await ask(platform.bridge.url), await ask(platform.reader.url)]
    expect(forwarded, path).toEqual(own)
    return forwarded
  }
  for (const path of [
    '/devices',
    '/devices?details=perhaps',
    `/devices/${id}`,
    '/devices/a%2Fb',
    '/commands/nothing',
    '/nothing',
  ])
    await both(path)
  for (const body of ['{}', 'no JSON', '{"command":"x"}'])
    await both('/devices/%2e%2e/command', { method: 'POST', body })
  const key = { ...headers, 'idempotency-key': 'once' }
  const sent = await both(`/devices/${id}/command`, { method: 'POST', body: '{"command":"x"}', headers: key })
  expect(sent[0]).toBe(202)
  await both(`/commands/${JSON.parse(String(sent[2])).command_id}`)
  expect((await fetch(`${platform.reader.url}/devices`)).status).toBe(401)

  const { paths, components } = JSON.parse((await call('/openapi.json')).text)
  expect(Object.keys(paths).sort()).toEqual([
    '/commands/{commandId}',
    '/dead-letters',
    '/devices',
    '/devices/{deviceId}',
    '/devices/{deviceId}/command',
    '/devices/{deviceId}/history',
    '/devices/{deviceId}/series',
    '/devices/{deviceId}/series/fields',
    '/devices/{deviceId}/state',
    '/flow',
    '/health/live',
    '/health/ready',
    '/live',
    '/metrics',
    '/states',
  ])
  expect(Object.keys(components.schemas)).toEqual(expect.arrayContaining(['Command', 'Error', 'State']))
})

test('a read key reads, one with a prefix reads of its own devices alone, and keys are in no log', async () => {
  const { platform } = fixture
  const { redis, run, reader } = platform
  const [mine, other] = [platform.id('site-a'), platform.id('site-b')]
  for (const id of [mine, other]) {
    await device.publishAsync(`${platform.prefix}/${id}/hello`, '', { qos: 1 })
    await publish(id, '1')
    await stored(id)
  }
  await eventually(async () => (await json(`/states?contains=${run}&online=true&prefix=site-`)).matched === 2, 'known')
  const as = async (key: string, path: string, init: RequestInit = {}) => {
    const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' }
    const reply = await fetch(reader.url + path, { ...init, headers })
    return { status: reply.status, text: await reply.text() }
  }
  const command = { method: 'POST', body: '{"command":"x"}' }
  const own = [
    `/devices/${mine}`,
    `/devices/${mine}/state`,
    `/devices/${mine}/history`,
    `/devices/${mine}/series/fields`,
  ]
  const lists = [`/states?contains=${run}`, `/states?contains=${run}&format=csv`, '/devices', '/devices?details=true']
  for (const path of [...own, ...lists, `/devices/${other}/state`]) {
    const { status, text } = await as(READ_KEY, path)
    expect([status, text.includes(mine) || text === '[]'], path).toEqual([200, !path.includes(other)])
  }
  for (const path of [...own, ...lists]) {
    const { status, text } = await as(SITE_KEY, path)
    expect([status, text.includes(other)], path).toEqual([200, false])
  }
  for (const what of ['', '/state', '/history', '/series?fields=t', '/nothing'])
    expect((await as(SITE_KEY, `/devices/${other}${what}`)).status, what).toBe(what === '/nothing' ? 404 : 403)
  expect(JSON.parse((await as(SITE_KEY, `/states?contains=${run}`)).text)).toMatchObject({ matched: 1, next: null })
  for (const key of [READ_KEY, SITE_KEY]) {
    const { status, text } = await as(key, `/devices/${mine}/command`, command)
    expect([status, JSON.parse(text).code]).toEqual([403, 'FORBIDDEN'])
  }
  const said = reader.log() + (await reader.metrics())
  for (const key of [KEY, READ_KEY, SITE_KEY]) expect(said).not.toContain(key)
  await redis.del(...[mine, other].map(lastStateKey))
})

test.each([
  ['', 10],
  ['3', 3],
])('it stands behind the services that store: READER_NICE=%s', async (nice, priority) => {
  const { reader } = fixture.platform
  await reader.kill()
  await startReader({ READER_NICE: nice })
  expect(getPriority(reader.pid())).toBe(priority)
})

test('a part that is away is said within 6 s, and everything else goes on', async () => {
  const { platform } = fixture
  const { redis, reader, bridge } = platform
  const [redisProxy, bridgeProxy] = [
    await createProxy(inject('redisPort')),
    await createProxy(Number(new URL(bridge.url).port)),
  ]
  const proxies = { redis: redisProxy, bridge: bridgeProxy }
  const id = platform.id('parts')
  const got: string[] = []
  device.on('message', (_topic, payload) => got.push(JSON.parse(String(payload)).command))
  await device.subscribeAsync(`${platform.prefix}/${id}/commands`, { qos: 1 })
  const hello = () => device.publishAsync(`${platform.prefix}/${id}/hello`, '', { qos: 1 })
  await publish(id, '1')
  await fill(id, 1000)
  await reader.stop()
  await startReader({
    REDIS_URL: `redis://127.0.0.1:${redisProxy.port}`,
    BRIDGE_URLS: `http://127.0.0.1:${bridgeProxy.port}`,
  })
  const command = async (name: string) => {
    const headers = { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' }
    const init = { method: 'POST', headers, body: `{"command":"${name}"}` }
    const reply = await fetch(`${reader.url}/devices/${id}/command`, init)
    return [reply.status, ((await reply.json()) as { code?: string }).code]
  }
  const state = async () => {
    const { status, text } = await call(`/devices/${id}/state`)
    return [status, JSON.parse(text).code ?? JSON.parse(text).online]
  }
  const devices = async () => (await call('/devices')).status
  const notReady = async () => Object.keys((await json('/health/ready')).not_ready ?? {})
  const away = (part: keyof typeof proxies) => {
    for (const direction of ['up', 'down'] as const) proxies[part].stall(direction)
    const since = performance.now()
    return () => performance.now() - since
  }
  await hello()
  await eventually(async () => String(await state()) === '200,true', 'all is well')

  const torn = await open(`/devices/${id}/history?format=ndjson`)
  let waited = away('redis')
  const tornEnd = expect(once(torn.resume(), 'end')).rejects.toThrow(/aborted/)
  expect(['504,REDIS_TIMEOUT', '503,REDIS_UNAVAILABLE']).toContain(String(await state()))
  expect(await state()).toEqual([503, 'REDIS_UNAVAILABLE'])
  expect(await notReady()).toEqual(['redis'])
  expect(waited()).toBeLessThan(15_000) // 6 s, on a machine that has time
  await tornEnd
  expect(await devices()).toBe(200)
  redisProxy.heal()
  await eventually(async () => (await state())[0] === 200, 'Redis is back')

  waited = away('bridge')
  expect(await Promise.all([command('lost'), devices()])).toEqual([[503, 'BRIDGE_UNREACHABLE'], 503])
  await eventually(async () => String(await notReady()) === 'bridge', 'it is said')
  expect(await state()).toEqual([200, null])
  expect(waited()).toBeLessThan(15_000) // 6 s, on a machine that has time
  bridgeProxy.heal()
  await eventually(async () => (await notReady()).length === 0, 'the bridge is back')
  await hello()
  await eventually(async () => String(await state()) === '200,true', 'all is well again')
  expect(await command('heard')).toEqual([202, undefined])
  await eventually(() => got.length > 0, 'a command')
  expect(got).toEqual(['heard'])
  for (const proxy of Object.values(proxies)) await proxy.close()
  await redis.del(historyKey(id))
})
