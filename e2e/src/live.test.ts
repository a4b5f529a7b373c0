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

const live = async (query = '', options: ListenOptions = {}) => {
  const client = await listen(`${platform.reader.url}/live?${query}`, options)
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
    found.set(partition, [...(found.get(partition) ?? []), { position, text: update.text }])
  }
  return found
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
  let isOver = false
  let sent = 0
  const writing = (async () => {
    while (!isOver) {
      const record = () => ({
        id: platform.id(`cut${randomInt(20)}`),
        payload: `{"seq":${sent++},"pad":"${'x'.repeat(randomInt(400))}"}`,
      })
      await send(Array.from({ length: randomInt(1, 20) }, record))
      await pause(20)
    }
  })()
  const got: LiveEvent[] = []
  const onEvent = (event: LiveEvent) => {
    if (event.event === 'gap') throw new Error('nothing is missing')
    if (event.event === 'update') got.push(event)
  }
  for (let cut = 0; cut < 50; cut++) {
    const isKill = cut % 10 === 9
    const cutAfter = isKill ? Number.POSITIVE_INFINITY : randomInt(200, 20_000)
    const client = await live('', { lastId, cutAfter, onEvent })
    if (isKill) {
      await eventually(() => client.updates().length > 5, 'some updates')
      await platform.reader.kill()
    }
    await client.ended
    lastId = client.lastId
    if (isKill) await platform.reader.start()
  }
  isOver = true
  await writing
  await live('', { lastId, onEvent })
  await eventually(() => got.length >= sent, 'all records')
  expect(byPartition(got)).toEqual(await onTopic(ends))
})

test('state, then feed behind it: each number after the state, none missing', async () => {
  const id = platform.id('joined')
  const device = await platform.device()
  let isOver = false
  let number = 0
  const writing = (async () => {
    while (!isOver) await device.publishAsync(`${platform.prefix}/${id}/data`, String(number++), { qos: 1 })
  })()
  type State = { payload: number; position: string }
  const stateOf = async () => (await (await fetch(`${platform.reader.url}/devices/${id}/state`)).json()) as State
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
  isOver = true
  await writing
})

test('every=: the newest of each device, and a cut between them loses none', async () => {
  const ids = ['a', 'b', 'c'].map((name) => platform.id(`every-${name}`))
  const query = `every=300ms&${ids.map((id) => `device=${id}`).join('&')}`
  const client = await live(query)
  const { position } = await opened(client)
  for (let round = 0; round < 30; round++) {
    await send(ids.map((id) => ({ id, payload: String(round) })))
    await pause(10)
  }
  const wanted = ids.map((id) => recordOf(id, '29'))
  const hasAll = (texts: string[]) => wanted.every((text) => texts.includes(text))
  await eventually(() => hasAll(client.updates().map(({ text }) => text)), 'the newest of each')
  expect(client.updates().length).toBeLessThan(60)
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

test('what retention removed is a gap with its exact count; nonsense is refused', async () => {
  const topic = `${platform.topic}-gaps`
  await createTopic(admin, { topic, numPartitions: 2 })
  await platform.reader.kill()
  await platform.reader.start({ KAFKA_TOPIC: topic })
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

  await platform.reader.kill() // what the ring has is no retention's matter
  await platform.reader.start({ KAFKA_TOPIC: topic })
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
  for (const query of ['every=1ms', 'count=0', 'for=x', 'device=%23', 'flow=1'])
    await expect(live(query), query).rejects.toThrow(/^400/)
  await expect(live('', { headers: { accept: 'text/html' } })).rejects.toThrow(/^406/)
})

test('a topic that is created again: a gap, then all of the new one, for those who listen and who come back', async () => {
  const topic = `${platform.topic}-anew`
  await createTopic(admin, { topic, numPartitions: 3 })
  await platform.reader.kill()
  await platform.reader.start({ KAFKA_TOPIC: topic })
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
  await platform.reader.kill()
  await platform.reader.start({ KAFKA_TOPIC: topic })
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
