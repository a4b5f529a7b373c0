// A Redis whose replies are not those of the scripts, such as a broken proxy's: nothing counts as stored.
import { createHash } from 'node:crypto'
import { createServer, type Server, type Socket } from 'node:net'
import { historyKey, lastStateKey } from '@iot/shared/contract'
import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import { createPlatform, eventually, type Platform } from './platform.js'
import { createProxy, type TcpProxy } from './proxy.js'

const DEVICES = 20

/** The reply to a script that was called for so many devices, as bytes on the wire. */
type Shape = (devices: number) => string

const bulk = (text: string) => `$${text.length}\r\n${text}\r\n`
const array = (...items: string[]) => `*${items.length}\r\n${items.join('')}`
const int = (value: number) => `:${value}\r\n`
const right: Shape = (devices) => array(int(devices), int(0))
const WRONGTYPE = bulk('WRONGTYPE Operation against a key holding the wrong kind of value')

/** Speaks as much RESP2 as a connection needs, and replies to scripts what it is told to. */
function createImpostor() {
  const impostor = {
    state: right,
    history: right,
    met: 0,
    server: undefined as Server | undefined,
    sockets: new Set<Socket>(),
  }
  const scripts = new Map<string, 'state' | 'history'>()

  const reply = ([command = '', ...args]: string[]): string => {
    switch (command.toUpperCase()) {
      case 'HELLO':
        return "-ERR unknown command 'HELLO'\r\n"
      case 'ECHO':
        return bulk(args[0] ?? '')
      case 'SCRIPT': {
        const sha = createHash('sha1')
          .update(args[1] ?? '')
          .digest('hex')
        scripts.set(sha, args[1]?.includes("'HSET'") ? 'state' : 'history')
        return bulk(sha)
      }
      case 'EVALSHA': {
        const script = scripts.get(args[0] ?? '') ?? 'state'
        impostor.met++
        return impostor[script](script === 'state' ? Number(args[1]) / 2 : Number(args[1]))
      }
      default:
        return '+OK\r\n'
    }
  }
  const serve = (socket: Socket) => {
    let buffered = ''
    impostor.sockets.add(socket)
    socket.on('error', () => {})
    socket.once('close', () => impostor.sockets.delete(socket))
    socket.setEncoding('latin1').on('data', (data: string) => {
      buffered += data
      for (;;) {
        const request = parse(buffered)
        if (!request) return
        buffered = buffered.slice(request.length)
        socket.write(reply(request.words), 'latin1')
      }
    })
  }
  impostor.server = createServer(serve)
  return impostor
}
const portOf = async ({ server }: ReturnType<typeof createImpostor>) => {
  await new Promise<void>((resolve) => server?.listen(0, '127.0.0.1', resolve))
  return (server?.address() as { port: number }).port
}

/** The first whole request of the text: an array of bulk strings. */
function parse(text: string): { words: string[]; length: number } | null {
  let at = 0
  const line = () => {
    const end = text.indexOf('\r\n', at)
    if (end === -1) return null
    const number = Number(text.slice(at + 1, end))
    at = end + 2
    return number
  }
  const count = line()
  if (count === null) return null
  const words: string[] = []
  while (words.length < count) {
    const length = line()
    if (length === null || text.length < at + length + 2) return null
    words.push(text.slice(at, at + length))
    at += length + 2
  }
  return { words, length: at }
}

let impostor: ReturnType<typeof createImpostor>
let proxy: TcpProxy
let platform: Platform
let ids: string[]
beforeAll(async () => {
  impostor = createImpostor()
  proxy = await createProxy(await portOf(impostor))
  platform = await createPlatform({ kafka: inject('kafkaPort'), redis: inject('redisPort'), mqtt: inject('mqttPort') })
  ids = Array.from({ length: DEVICES }, (_, index) => platform.id(`device-${index}`))
  impostor.state = () => '*0\r\n'
  await platform.bridge.start()
  await platform.bridge.ready()
  const device = await platform.device()
  await Promise.all(ids.map((id) => device.publishAsync(`${platform.prefix}/${id}/data`, '1', { qos: 1 })))
  await platform.records(DEVICES)
  await platform.consumer.start({ REDIS_URL: `redis://127.0.0.1:${proxy.port}` })
})
afterAll(async () => {
  await platform?.down()
  await proxy?.close()
  await new Promise((resolve) => impostor.server?.close(resolve))
})

const outOfRange: Shape = (devices) => array(int(devices - 1), int(0), int(99), WRONGTYPE)
// what differs on the wire; replies.test.ts has more
const shapes: [script: 'state' | 'history', name: string, shape: Shape][] = [
  ['state', 'a nil array', () => '*-1\r\n'],
  ['state', 'an empty array', () => '*0\r\n'],
  ['state', 'an array of nil', () => array('$-1\r\n')],
  ['state', 'a status', () => '+OK\r\n'],
  ['state', 'too few devices', (devices) => array(int(devices - 1), int(0))],
  ['state', 'numbers as text', (devices) => array(bulk(String(devices)), bulk('0'))],
  ['state', 'a device out of range', outOfRange],
  ['state', 'words that are nil', (devices) => array(int(devices - 1), int(0), int(1), '$-1\r\n')],
  ['state', 'an error that is unknown', (devices) => array(int(devices - 1), int(0), int(1), bulk('ERR new'))],
  ['state', 'an error inside', (devices) => array(int(devices), '-WRONGTYPE Operation against a key\r\n')],
  ['state', 'WRONGTYPE for the whole call', () => '-WRONGTYPE Operation against a key\r\n'],
  ['state', 'a reply twice', (devices) => right(devices).repeat(2)],
  ['state', 'a reply left out', () => ''],
  ['state', 'another protocol', () => 'HTTP/1.1 400 Bad Request\r\n\r\n'],
  ['history', 'an empty array', () => '*0\r\n'],
  ['history', 'an array of nil', () => array('$-1\r\n')],
  ['history', 'a device out of range', outOfRange],
]

test('a reply of another form is a failure: nothing is committed, nothing is a dead letter', async () => {
  const { consumer, topic } = platform
  const atKafka = async () => !(await (await fetch(`${consumer.url}/health/ready`)).text()).includes('"kafka"')
  await eventually(atKafka, 'nothing is wrong at Kafka: a consumer that has just started says so for a moment')
  for (const [script, name, shape] of shapes) {
    Object.assign(impostor, { state: right, history: right, [script]: shape, met: 0 })
    // a try sends both scripts: the third call is a second try
    await eventually(
      () => impostor.met >= 3,
      () => `${name} was met, and tried again: ${consumer.log()}`,
    )
    const reply = await fetch(`${consumer.url}/health/ready`)
    expect(reply.status, name).toBe(503)
    expect(Object.keys(((await reply.json()) as { not_ready: object }).not_ready), name).toEqual(['redis'])
    expect(await platform.lag(), name).toBe(DEVICES)
  }
  const letters = [...(await platform.ends(`${topic}-dlq`)).values()]
  expect(letters.reduce((sum, end) => sum + end, 0)).toBe(0)
}, 120_000)

const UNASKED = ['$-1\r\n', '>1\r\n$-1\r\n', '$536870912\r\n', '*1\r\n'.repeat(100_000), `+${'a'.repeat(1e6)}`]

test.each([
  'consumer',
  'reader',
] as const)('%s: what nobody asked for, and what says that it is huge, costs a connection and not the process', async (name) => {
  const service = platform[name]
  const server = name === 'consumer' ? impostor : createImpostor()
  if (name === 'reader') await service.start({ REDIS_URL: `redis://127.0.0.1:${await portOf(server)}` })
  server.state = () => '*0\r\n'
  const pid = service.pid()
  for (const bytes of UNASKED) {
    await eventually(() => server.sockets.size > 0, 'a connection')
    const [socket] = server.sockets
    socket?.write(bytes)
    await eventually(() => socket && !server.sockets.has(socket), `${bytes.slice(0, 20)} ends the connection`)
  }
  expect(service.pid()).toBe(pid)
  expect((await fetch(`${service.url}/health/live`)).status).toBe(200)
})

test('behind the same address stands Redis again: everything is stored', async () => {
  const { redis } = platform
  proxy.target = inject('redisPort')
  await platform.consumer.ready()
  await eventually(async () => (await platform.lag()) === 0, 'lag 0')
  for (const id of ids) {
    expect(await redis.zcard(historyKey(id))).toBe(1)
    expect(await redis.hget(lastStateKey(id), 'payload')).toBe('1')
  }
})
