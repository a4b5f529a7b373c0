// The live feed: what Kafka has, each record once and in order, over cuts, kills and clients that do not read.
import { randomInt } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { type Admin, Partitioners, type Producer } from 'kafkajs'
import { afterAll, afterEach, expect, test } from 'vitest'
import { usePlatform } from './fixture.js'
import { type ListenOptions, type LiveClient, type LiveEvent, listen } from './live-client.js'
import { createTopic, eventually, type Platform } from './platform.js'

let platform: Platform
let admin: Admin
let producer: Producer
usePlatform({
  async start(started) {
    platform = started
    await platform.up({ reader: {} })
    admin = platform.kafka.admin()
    producer = platform.kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner })
    await Promise.all([admin.connect(), producer.connect()])
  },
})
const clients: LiveClient[] = []
afterEach(() => {
  for (const client of clients.splice(0)) client.cut()
})
afterAll(async () => {
  await producer?.disconnect()
  await admin?.disconnect()
})

/** Kills the reader, whatever it has in memory, and starts another one. */
async function restart(env: NodeJS.ProcessEnv = {}) {
  await platform.reader.kill()
  await platform.startReader(env)
}
/** A stream; as every client does, it asks again when Kafka does not answer in time. */
const live = async (query = '', options: ListenOptions = {}): Promise<LiveClient> => {
  const opening = listen(`${platform.reader.url}/live?${query}`, options)
  const client = await opening.catch(async (error: Error) => {
    if (!error.message.includes('KAFKA_UNAVAILABLE')) throw error
    await pause(500)
    return live(query, options)
  })
  clients.push(client)
  return client
}
const recordOf = (id: string, payload: string) => `{"device_id":"${id}","payload":${payload},"timestamp":1700000000}`
const send = (records: { id: string; payload: string; partition?: number }[], topic = platform.topic) =>
  producer.send({
    topic,
    acks: -1,
    messages: records.map(({ id, payload, ...rest }) => ({ key: id, value: recordOf(id, payload), ...rest })),
  })
const positionIn = ({ id = '' }: LiveEvent) => id.slice(0, id.indexOf('~'))
const openOf = ({ events }: LiveClient) =>
  events.find(({ event }) => event === 'open')?.data as { position: string; resumed: boolean }
const opened = async (client: LiveClient) => {
  await eventually(() => openOf(client), 'it is open')
  return openOf(client)
}
const gapsOf = ({ events }: LiveClient) => events.filter(({ event }) => event === 'gap').map(({ data }) => data)
const metric = async (name: string) => {
  const lines = (await platform.reader.metrics()).split('\n')
  return Number(lines.find((line) => line.startsWith(`${name} `))?.slice(name.length))
}

/** The records of the topic from `starts` on, as an exact feed tells them. */
async function onTopic(starts: Map<number, number>, topic = platform.topic) {
  const found = new Map<number, { position: string; text: string }[]>()
  await platform.recordsFrom(
    starts,
    ({ partition, offset, value }) => {
      const list = found.get(partition) ?? []
      list.push({ position: `${partition}:${offset}`, text: String(value) })
      found.set(partition, list)
    },
    topic,
  )
  return found
}
function byPartition(updates: LiveEvent[]) {
  const found = new Map<number, { position: string; text: string }[]>()
  for (const update of updates) {
    const position = positionIn(update)
    const partition = Number(position.split(':')[0])
    const list = found.get(partition) ?? []
    list.push({ position, text: update.text })
    found.set(partition, list)
  }
  return found
}
/** Repeats `write` for as long as `body` takes, and no longer, however it ends. */
async function whileWriting(write: () => Promise<void>, body: () => Promise<void>) {
  let isOver = false
  const writing = (async () => {
    while (!isOver) await write()
  })()
  try {
    await body()
  } finally {
    isOver = true
    await writing
  }
}

test('an update has the bytes of its record, on one line; what is none of ours is passed over', async () => {
  const [id, other] = [platform.id('exact'), platform.id('other')]
  const sse = await live(`device=${id}`)
  const { position } = await opened(sse)
  const payload = '{"serial":12345678901234567890,"t":1.10,"e":1E+3,"text":"ü\\r\\n"}'
  await send([{ id, payload }])
  await producer.send({ topic: platform.topic, messages: [{ key: id, value: 'garbage' }] })
  await send([
    { id, payload: '{\r\n  "pretty": 1.0\n}' },
    { id: other, payload: '1' },
    { id, payload: '"last"' },
  ])
  const texts = [recordOf(id, payload), recordOf(id, '{    "pretty": 1.0 }'), recordOf(id, '"last"')]
  await eventually(() => sse.updates().length === 3, 'three updates')
  expect(sse.updates().map(({ text }) => text)).toEqual(texts)

  // the same again from a position, as lines, by Accept and by `format`
  for (const headers of [{ accept: 'application/x-ndjson' }, {}] as Record<string, string>[]) {
    const format = headers.accept ? '' : '&format=ndjson'
    const url = `${platform.reader.url}/live?device=${id}&count=3${format}&after=${position}`
    const response = await fetch(url, { headers })
    expect(response.headers.get('content-type')).toBe('application/x-ndjson')
    const lines = (await response.text()).trimEnd().split('\n')
    const updates = lines.filter((line) => JSON.parse(line).event === 'update')
    expect(updates).toEqual(
      sse.updates().map((one, index) => `{"id":"${one.id}","event":"update","data":${texts[index]}}`),
    )
    expect(JSON.parse(lines[0] ?? '')).toMatchObject({ event: 'open', data: { resumed: true } })
  }
  const prefixed = await live(`prefix=${other.slice(0, -1)}&after=${position}`)
  await eventually(() => prefixed.updates().length === 1, 'the other device')
  expect(prefixed.updates()[0]?.text).toBe(recordOf(other, '1'))
})

test('50 cuts at random bytes and 5 kills of the reader: what comes is the topic, each record once, in order', async () => {
  const ends = await platform.ends()
  const first = await live()
  const { position } = await opened(first)
  first.cut()
  let lastId = position
  let sent = 0
  const write = async () => {
    const record = () => ({
      id: platform.id(`cut${randomInt(20)}`),
      payload: `{"seq":${sent++},"pad":"${'x'.repeat(randomInt(400))}"}`,
    })
    await send(Array.from({ length: randomInt(1, 20) }, record))
    await pause(20)
  }
  const got: LiveEvent[] = []
  const onEvent = (event: LiveEvent) => {
    if (event.event === 'gap') throw new Error('nothing is missing')
    if (event.event === 'update') got.push(event)
  }
  await whileWriting(write, async () => {
    for (let cut = 0; cut < 50; cut++) {
      const isKill = cut % 10 === 9
      const cutAfter = isKill ? Number.POSITIVE_INFINITY : randomInt(200, 20_000)
      const client = await live('', { lastId, cutAfter, onEvent })
      if (isKill) {
        await eventually(() => client.updates().length > 5, 'some updates')
        await restart()
      }
      await client.ended
      lastId = client.lastId
    }
  })
  await live('', { lastId, onEvent })
  await eventually(() => got.length >= sent, 'all records')
  expect(byPartition(got)).toEqual(await onTopic(ends))
})

test('state, then feed behind it: each number after the state, none missing', async () => {
  const id = platform.id('joined')
  const device = await platform.device()
  let number = 0
  const write = async () => {
    await device.publishAsync(`${platform.prefix}/${id}/data`, String(number++), { qos: 1 })
    await pause(1) // or the tests after this one would read a million records
  }
  type State = { payload: number; position: string }
  const stateOf = async () => (await (await fetch(`${platform.reader.url}/devices/${id}/state`)).json()) as State
  await whileWriting(write, async () => {
    await eventually(async () => (await stateOf()).payload >= 0, 'a state')
    for (let round = 0; round < 50; round++) {
      const state = await stateOf()
      await pause(randomInt(20))
      const client = await live(`device=${id}&count=5&after=${state.position}`)
      await client.ended
      const numbers = client.updates().map(({ data }) => (data as { payload: number }).payload)
      // the state may be newer than its position says: then it comes again
      const [from = -1] = numbers
      expect(from).toBeLessThanOrEqual(state.payload + 1)
      expect(numbers).toEqual(Array.from({ length: 5 }, (_, index) => from + index))
      expect(openOf(client)).toMatchObject({ resumed: true })
    }
  })
})

test('every=: the newest of each device, and a cut between them loses none', async () => {
  const ids = ['a', 'b', 'c'].map((name) => platform.id(`every-${name}`))
  const query = `every=300ms&${ids.map((id) => `device=${id}`).join('&')}`
  const client = await live(query)
  const { position } = await opened(client)
  const openedMs = performance.now()
  for (let round = 0; round < 30; round++) {
    await send(ids.map((id) => ({ id, payload: String(round) })))
    await pause(10)
  }
  const wanted = ids.map((id) => recordOf(id, '29'))
  const hasAll = (texts: string[]) => wanted.every((text) => texts.includes(text))
  await eventually(() => hasAll(client.updates().map(({ text }) => text)), 'the newest of each')
  const flushes = (performance.now() - openedMs) / 300 + 1
  expect(client.updates().length).toBeLessThanOrEqual(3 * flushes)
  for (const { id = '', text } of client.updates()) expect(id, text).toMatch(/^\d+:\d+~/)
  // one that is cut within a flush gets what it has not got
  const seen = new Map<string, string>()
  let lastId = position
  for (let cutAfter = 150; ; cutAfter += 37) {
    const again = await live(query, { lastId, cutAfter })
    await Promise.race([again.ended, eventually(() => again.updates().length >= 3, 'three updates')])
    for (const { data, text } of again.updates()) seen.set((data as { device_id: string }).device_id, text)
    lastId = again.lastId
    again.cut()
    if (hasAll([...seen.values()])) break
  }
})

test('from the earliest, further back than memory reaches, and slowly: all of the topic, each record once', async () => {
  const wanted = await onTopic(new Map())
  const count = [...wanted.values()].reduce(
    (sum, list) => sum + list.filter(({ text }) => text !== 'garbage').length,
    0,
  )
  await restart() // its memory begins ten seconds back
  const slow = await live('after=earliest')
  for (let stop = 0; stop < 5; stop++) {
    slow.pause()
    await pause(50)
    slow.resume()
    await pause(5)
  }
  await eventually(() => slow.updates().length >= count, 'all records')
  const onOneLine = (text: string) => text.replaceAll(/[\r\n]/g, ' ')
  for (const [partition, list] of wanted) {
    const exact = list.filter(({ text }) => text !== 'garbage')
    wanted.set(
      partition,
      exact.map(({ position, text }) => ({ position, text: onOneLine(text) })),
    )
  }
  expect(byPartition(slow.updates())).toEqual(wanted)
  expect(gapsOf(slow)).toEqual([])
})

test('who stops reading is parked, later closed, and comes back exactly; others notice nothing', async () => {
  const ends = await platform.ends()
  const [stalled, halted, healthy] = await Promise.all([live(), live(), live()])
  await Promise.all([stalled, halted, healthy].map(opened))
  stalled.pause()
  halted.pause()
  const pad = 'x'.repeat(50_000)
  for (let batch = 0; batch < 30; batch++)
    await send(
      Array.from({ length: 10 }, (_, index) => ({ id: platform.id(`stall${index}`), payload: `"${batch}${pad}"` })),
    )
  await eventually(() => healthy.updates().length === 300, 'all for who reads')
  await eventually(async () => (await metric('iot_live_parked')) === 2, 'both are parked')
  halted.resume()
  await eventually(() => halted.updates().length === 300, 'all for who reads again')
  const wanted = await onTopic(ends)
  expect(byPartition(halted.updates())).toEqual(wanted)

  const isClosed = async () => (await metric('iot_live_closed_total{reason="stalled"}')) === 1
  await eventually(isClosed, 'the one that takes nothing is closed', 90_000)
  expect(healthy.lastId).toMatch(/^~/) // a heartbeat's: nothing else has come for a while
  stalled.resume()
  expect(await stalled.ended).toBe('cut')
  expect(stalled.updates().length).toBeLessThan(300)
  const back = await live('', { lastId: stalled.lastId })
  await eventually(() => stalled.updates().length + back.updates().length === 300, 'the rest')
  expect(byPartition([...stalled.updates(), ...back.updates()])).toEqual(wanted)
  expect(platform.reader.log()).toMatch(/"address":"127.0.0.1".*a client took nothing: closed/)
})

test('who comes and goes, and the flow, beside the updates; the end that was asked for', async () => {
  const id = platform.id('present')
  const device = await platform.device()
  const client = await live(`device=${id}&presence=true&flow=true`)
  const told = () => client.events.filter(({ event }) => event === 'presence').map(({ text }) => text)
  await eventually(() => told().length === 1, 'how it stands')
  await device.publishAsync(`${platform.prefix}/${id}/hello`, '', { qos: 1 })
  await eventually(() => told().length === 2, 'it came')
  expect(told()).toEqual([false, true].map((online) => `{"device_id":"${id}","online":${online}}`))
  const flows = () => client.events.filter(({ event }) => event === 'flow').map(({ data }) => data as Flow)
  await eventually(() => flows().length >= 3, 'three looks at the flow')
  const one = await live(`device=${id}&count=1`)
  await opened(one)
  await device.publishAsync(`${platform.prefix}/${id}/data`, '1', { qos: 1 })
  expect(await one.ended).toBe('end')
  expect(one.updates()).toHaveLength(1)
  expect(await (await live('for=100ms')).ended).toBe('end')
  await expect(fetch(`${platform.reader.url}/live`, { method: 'HEAD' })).resolves.toMatchObject({ status: 405 })
})

type Flow = {
  bridges: { ready: boolean | null; received_per_second: number | null; in_flight: number | null }[]
  kafka: { ready: boolean; lag: number | null; partitions: { partition: number; lag: number | null }[] }
  consumers: { ready: boolean | null; stored_per_second: number | null }[]
  dead_letters: { last_5_minutes: number | null }
  unknown: string[]
}
const json = async (path: string) => (await fetch(`${platform.reader.url}${path}`)).json()

test('the flow has rates and lags; what does not answer is named, and its figures are null', async () => {
  const device = await platform.device()
  const topic = `${platform.prefix}/${platform.id('flow')}/data`
  let isOver = false
  const writing = (async () => {
    while (!isOver) {
      await device.publishAsync(topic, '1', { qos: 1 })
      await pause(20)
    }
  })()
  await eventually(async () => ((await json('/flow')) as Flow).bridges[0]?.received_per_second, 'a rate')
  const rates = async () => (await json('/flow')) as Flow
  await eventually(async () => (await rates()).unknown.length === 0, 'all is known')
  expect((await rates()).kafka).toMatchObject({ ready: true })
  await eventually(async () => ((await rates()).consumers[0]?.stored_per_second ?? 0) > 0, 'what is stored')
  platform.consumer.signal('SIGSTOP')
  await eventually(async () => ((await rates()).kafka.lag ?? 0) > 10, 'what waits')
  await eventually(async () => {
    const { consumers, unknown, kafka } = await rates()
    const isNamed = unknown.length === 1 && unknown[0]?.startsWith(platform.consumer.url)
    return isNamed && consumers[0]?.stored_per_second === null && kafka.partitions?.length === 6
  }, 'what is not known')
  platform.consumer.signal('SIGCONT')
  isOver = true
  await writing
  await eventually(async () => (await rates()).kafka.lag === 0 && (await rates()).unknown.length === 0, 'all is well')
})

test('dead letters, the newest first, with their bytes as text or base64', async () => {
  const device = await platform.device()
  const id = platform.id('letters')
  const topic = `${platform.prefix}/${id}/data`
  const binary = Buffer.from([0xff, 0, 1])
  await device.publishAsync(topic, '', { qos: 1 })
  await device.publishAsync(topic, binary, { qos: 1 })
  await device.publishAsync(topic, `"\u0000${'ü'.repeat(4000)}"`, { qos: 1 })
  type Letters = { letters: Record<string, unknown>[]; total: number }
  const find = async (query = '') => ((await json(`/dead-letters?${query}`)) as Letters).letters
  await eventually(async () => (await find()).filter(({ device_id }) => device_id === id).length === 3, 'three letters')
  const [third, second, first] = await find()
  expect(first).toMatchObject({ reason: 'empty_payload', source: topic, device_id: id, bytes: 0, text: '' })
  expect(second).toMatchObject({ reason: 'not_utf8', bytes: 3, base64: binary.toString('base64') })
  expect(third).toMatchObject({ reason: 'not_utf8', bytes: 8003, text: `"\u0000${'ü'.repeat(2047)}` })
  expect(Number(third?.timestamp)).toBeGreaterThan(1_700_000_000)
  expect(await find('reason=empty_payload&limit=1')).toEqual([first])
  await eventually(
    async () => Number(((await json('/flow')) as Flow).dead_letters.last_5_minutes) >= 3,
    'they are counted',
  )
  expect((await fetch(`${platform.reader.url}/dead-letters?reason=x`)).status).toBe(400)
})

test('there are as many streams as are allowed, and one that ends makes room', async () => {
  await restart({ MAX_LIVE_STREAMS: '4', MAX_LIVE_STREAMS_PER_ADDRESS: '3', API_TRUST_PROXY: 'true' })
  const of = (address: string) => live('', { headers: { 'x-forwarded-for': address } })
  const [first] = await Promise.all([of('10.0.0.1'), of('10.0.0.1'), of('10.0.0.1')])
  await expect(of('10.0.0.1')).rejects.toThrow(/^503.*TOO_MANY_STREAMS/)
  await of('10.0.0.2')
  await expect(of('10.0.0.3')).rejects.toThrow(/^503.*TOO_MANY_STREAMS/)
  first?.cut()
  await eventually(() => of('10.0.0.1'), 'there is room again')
  expect(await platform.reader.stop(), platform.reader.log()).toBe(0)
  for (const client of clients) await client.ended // it does not wait for them
})

test('a key with a prefix gets the devices that begin so, and no others', async () => {
  const key = 'a-key-of-sixteen'
  await restart({ API_READ_KEY: `${key}:own-` })
  await expect(live()).rejects.toThrow(/^401/)
  const headers = { authorization: `Bearer ${key}` }
  const client = await live('', { headers })
  await opened(client)
  const ids = [platform.id('other'), `own-${platform.run}`]
  await send(ids.map((id) => ({ id, payload: '1' })))
  await eventually(() => client.updates().length > 0, 'an update')
  expect(client.updates().map(({ text }) => text)).toEqual([recordOf(`own-${platform.run}`, '1')])
  for (const query of [`device=${ids[0]}`, 'flow=true']) await expect(live(query, { headers })).rejects.toThrow(/^403/)
  expect((await fetch(`${platform.reader.url}/dead-letters`, { headers })).status).toBe(403)
})

test('what retention removed is a gap with its exact count; nonsense is refused', async () => {
  const topic = `${platform.topic}-gaps`
  await createTopic(admin, { topic, numPartitions: 2 })
  await restart({ KAFKA_TOPIC: topic })
  const id = platform.id('gap')
  const one = (payload: number, partition: number) => ({ id, payload: String(payload), partition })
  const before = await live()
  const { position } = await opened(before)
  await send(
    Array.from({ length: 200 }, (_, index) => one(index, index % 2)),
    topic,
  )
  await eventually(() => before.updates().length === 200, 'all')
  const middle = before.updates()[99] as LiveEvent
  before.cut()
  await admin.fetchTopicOffsets(topic)
  await admin.deleteTopicRecords({
    topic,
    partitions: [
      { partition: 0, offset: '90' },
      { partition: 1, offset: '75' },
    ],
  })

  await restart({ KAFKA_TOPIC: topic }) // what the ring has is no retention's matter
  const late = await live('', { lastId: position })
  await eventually(() => late.updates().length === 35, 'what is left')
  expect(openOf(late)).toMatchObject({ resumed: false })
  const partitions = { 0: { from: 0, to: 89 }, 1: { from: 0, to: 74 } }
  expect(gapsOf(late)).toEqual([{ reason: 'retention', missed: 165, partitions }])
  expect(byPartition(late.updates())).toEqual(await onTopic(new Map(), topic))

  const read = byPartition(before.updates().slice(0, 100))
  const [first = 0, second = 0] = [0, 1].map((partition) => read.get(partition)?.length)
  const fromMiddle = await live('', { lastId: middle.id as string })
  const gone = { 0: { from: first, to: 89 }, 1: { from: second, to: 74 } }
  const expected = Object.entries(gone).filter(([, { from, to }]) => from <= to)
  const missed = expected.reduce((sum, [, { from, to }]) => sum + to - from + 1, 0)
  await eventually(() => gapsOf(fromMiddle).length === 1, 'a gap')
  expect(gapsOf(fromMiddle)).toEqual([{ reason: 'retention', missed, partitions: Object.fromEntries(expected) }])
  await eventually(() => fromMiddle.updates().length === 200 - 100 - missed, 'what is left')

  for (const nonsense of ['x', '~', '~A', '5:', '0:1', encodeURIComponent('~1~é')])
    await expect(live(`after=${nonsense}`), nonsense).rejects.toThrow(/^400.*INVALID_POSITION/)
  await expect(live('', { lastId: '~.' })).rejects.toThrow(/^400.*INVALID_POSITION/)
  for (const query of ['every=2m', 'count=0', 'for=x', 'device=%23', 'flow=1'])
    await expect(live(query), query).rejects.toThrow(/^400/)
  await expect(live('', { headers: { accept: 'text/html' } })).rejects.toThrow(/^406/)
})

test('a topic that is created again: a gap, then all of the new one, for those who listen and who come back', async () => {
  const topic = `${platform.topic}-anew`
  await createTopic(admin, { topic, numPartitions: 3 })
  await restart({ KAFKA_TOPIC: topic })
  const id = platform.id('anew')
  const listening = await live()
  await opened(listening)
  await send(
    Array.from({ length: 30 }, (_, index) => ({ id, payload: String(index), partition: index % 3 })),
    topic,
  )
  await eventually(() => listening.updates().length === 30, 'all of the old topic')
  const lastId = listening.lastId
  await admin.deleteTopics({ topics: [topic] })
  await createTopic(admin, { topic, numPartitions: 3 })
  // more than there were: their offsets alone would not tell
  await send(
    Array.from({ length: 60 }, (_, index) => ({ id, payload: `"new ${index}"`, partition: index % 3 })),
    topic,
  )
  const wanted = await onTopic(new Map(), topic)
  const isNew = ({ text }: LiveEvent) => text.includes('"new ')
  await eventually(() => listening.updates().filter(isNew).length >= 60, 'all of the new topic')
  expect(byPartition(listening.updates().filter(isNew))).toEqual(wanted)
  expect(gapsOf(listening)).toEqual([{ reason: 'topic_changed', missed: null }])
  const back = await live('', { lastId })
  await eventually(() => back.updates().length >= 60, 'all of the new topic')
  expect(byPartition(back.updates())).toEqual(wanted)
  expect(gapsOf(back)).toEqual([{ reason: 'topic_changed', missed: null }])
  expect(openOf(back)).toMatchObject({ resumed: false })
})

test('partitions that are added while somebody listens are read from their beginning', async () => {
  const topic = `${platform.topic}-grown`
  await createTopic(admin, { topic, numPartitions: 2 })
  await restart({ KAFKA_TOPIC: topic })
  const id = platform.id('grown')
  const client = await live()
  const { position } = await opened(client)
  await admin.createPartitions({ topicPartitions: [{ topic, count: 4 }] })
  await eventually(async () => (await admin.fetchTopicOffsets(topic)).length === 4, 'four partitions')
  await eventually(
    () =>
      send(
        Array.from({ length: 40 }, (_, index) => ({ id, payload: String(index), partition: index % 4 })),
        topic,
      ),
    'the producer knows of them',
  )
  const wanted = await onTopic(new Map(), topic)
  const count = [...wanted.values()].reduce((sum, list) => sum + list.length, 0)
  await eventually(() => client.updates().length >= count, 'all of them', 15_000)
  expect(byPartition(client.updates())).toEqual(wanted)
  expect(gapsOf(client)).toEqual([])
  const again = await live('', { lastId: position })
  await eventually(() => again.updates().length >= count, 'all of them again')
  expect(byPartition(again.updates())).toEqual(wanted)
})
