// The REST API with a hundred thousand devices online: how long calls take, and what they cost ingestion.
import { connect } from 'node:net'
import { claimPort } from '@iot/stack/ports'
import mqtt from 'mqtt'
import * as contenders from './contenders.js'
import { type Backlog, createFeed, deviceId, fillMqtt } from './load.js'
import { pause, type Rig, usage } from './rig.js'

const ONLINE = 100_000
const CALL_EVERY_MS = 100
const CALLS = 200
const COMMANDS = 200
const WINDOW_MS = 500 // with calls and without, in turn: what disturbs the machine disturbs both
const STUCK_MS = 120_000

export type Api = {
  online: number
  /** `GET /devices` while nothing else happens, in ms. */
  quietP50: number
  quietP99: number
  /** What a call costs the bridge, in ms of CPU. */
  callCpuMs: number
  /** The same while a backlog is ingested as fast as it goes. */
  busyP50: number
  busyP99: number
  /** From `POST …/command` to the device having it, in ms. */
  commandP50: number
  commandP99: number
  /** Ingestion from a backlog, msg/s, in half seconds without and with ten `GET /devices` a second. */
  ingestAlone: number
  ingestWithCalls: number
  /** In percent. */
  slowedBy: number
  /** What a device that is online costs the bridge, in bytes. */
  bytesPerDevice: number
}

export async function api(rig: Rig, backlog: Backlog, runs: number): Promise<Api> {
  const topic = await rig.createTopic()
  const port = rig.cluster.mosquitto.port
  const apiPort = await claimPort()
  const target = { prefix: rig.name('devices'), topic, clientId: rig.name('bridge'), group: '', apiPort }
  const url = `http://127.0.0.1:${apiPort}`
  const program = contenders.bridge(rig, target)
  const [quiet, busy]: [number[], number[]] = [[], []]
  /** Puts every device online; answers the bytes that each of them took. */
  const hello = async (pid: number) => {
    await ready(url)
    const before = usage(pid).peakMb
    const feed = await createFeed(port, `hello-${target.prefix}`)
    for (let index = 0; index < ONLINE; index++) {
      feed.publish(`${target.prefix}/${deviceId(index)}/hello`, '')
      if (index % 500 === 0) await feed.below(1000)
    }
    await feed.below(0)
    feed.close()
    while (((await (await fetch(`${url}/devices`)).json()) as string[]).length < ONLINE) await pause(200)
    return ((usage(pid).peakMb - before) * 1024 * 1024) / ONLINE
  }
  const running = rig.start(program)
  try {
    const bytesPerDevice = await hello(running.pid)
    const caller = await createCaller(apiPort, '/devices')
    /** Ten calls a second until told to stop; time counts from when a call was due. */
    const callDevices = async (times: number[], isOver: () => boolean) => {
      for (let dueMs = performance.now(); !isOver(); dueMs += CALL_EVERY_MS) {
        await pause(Math.max(dueMs - performance.now(), 0))
        const bytes = await caller.call()
        times.push(performance.now() - dueMs)
        if (bytes !== ONLINE * (deviceId(0).length + 3) + 1) throw new Error(`not ${ONLINE} devices: ${bytes} bytes`)
      }
    }
    const cpuBeforeS = usage(running.pid).cpuS
    await callDevices(quiet, () => quiet.length === CALLS)
    const callCpuMs = ((usage(running.pid).cpuS - cpuBeforeS) * 1000) / CALLS
    const commandTimes = await commands(url, port, target.prefix)
    /** Ingests a backlog, calling in every other window; adds up what each whole window brought. */
    const drain = async (callFirst: boolean, sums: { messages: number; ms: number }[]) => {
      const before = await rig.inKafka(topic)
      process.kill(running.pid, 'SIGSTOP') // the backlog is all there before it starts
      await fillMqtt(port, target.prefix, backlog)
      process.kill(running.pid, 'SIGCONT')
      const stuckMs = performance.now() + STUCK_MS
      await pause(WINDOW_MS) // a process that stood still for seconds has other things to do first
      let from = { count: (await rig.inKafka(topic)) - before, atMs: performance.now() }
      for (let calling = callFirst; from.count < backlog.messages; calling = !calling) {
        const endMs = performance.now() + WINDOW_MS
        await Promise.all([pause(WINDOW_MS), calling && callDevices(busy, () => performance.now() >= endMs)])
        const now = { count: (await rig.inKafka(topic)) - before, atMs: performance.now() }
        const sum = sums[Number(calling)]
        if (sum && now.count < backlog.messages) {
          sum.messages += now.count - from.count
          sum.ms += now.atMs - from.atMs
        }
        if (now.atMs > stuckMs) throw new Error(`stuck at ${now.count} of ${backlog.messages}: see .local/bench`)
        from = now
      }
    }
    await drain(false, []) // not counted
    busy.length = 0
    const [alone, withCalls] = [
      { messages: 0, ms: 0 },
      { messages: 0, ms: 0 },
    ]
    for (let run = 0; run < runs; run++) await drain(run % 2 === 1, [alone, withCalls])
    const [ingestAlone, ingestWithCalls] = [alone, withCalls].map(({ messages, ms }) => (messages / ms) * 1000) as [
      number,
      number,
    ]
    return {
      online: ONLINE,
      quietP50: share(0.5, quiet),
      quietP99: share(0.99, quiet),
      callCpuMs,
      busyP50: share(0.5, busy),
      busyP99: share(0.99, busy),
      commandP50: share(0.5, commandTimes),
      commandP99: share(0.99, commandTimes),
      ingestAlone,
      ingestWithCalls,
      slowedBy: 100 * (1 - ingestWithCalls / ingestAlone),
      bytesPerDevice,
    }
  } finally {
    await running.stop() // closes the caller's connection too
    await rig.deleteTopic(topic)
  }
}

const share = (part: number, values: number[]) =>
  values.toSorted((a, b) => a - b)[Math.min(Math.floor(part * values.length), values.length - 1)] ?? 0

/**
 * A connection that is kept and asks for one path. What it reads is counted where it lies: Node's own HTTP client takes more
 * of the machine for 2 MB than the bridge does to send them.
 */
async function createCaller(port: number, path: string) {
  const buffer = Buffer.allocUnsafe(1 << 20)
  let left: number | null = null // bytes of the answer still to come; null before its head
  let done = (_bodyBytes: number) => {}
  let failed = (_error: Error) => {}
  let length = 0
  const socket = connect({
    host: '127.0.0.1',
    port,
    noDelay: true,
    onread: {
      buffer,
      callback(bytes) {
        if (left === null) {
          const head = buffer.toString('latin1', 0, Math.min(bytes, 4096))
          length = Number(/^content-length: (\d+)/im.exec(head)?.[1])
          left = length + head.indexOf('\r\n\r\n') + 4
          if (!head.startsWith('HTTP/1.1 200 ')) failed(new Error(`GET ${path} answered ${head.split('\r\n', 1)}`))
        }
        left -= bytes
        if (left > 0) return true
        left = null
        done(length)
        return true
      },
    },
  })
  socket.on('error', (error) => failed(error))
  return {
    /** Resolves with the body's length in bytes. One call at a time. */
    call: () =>
      new Promise<number>((resolve, reject) => {
        done = resolve
        failed = reject
        socket.write(`GET ${path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n`)
      }),
  }
}

async function ready(url: string) {
  for (let tries = 0; tries < 300; tries++) {
    const up = await fetch(`${url}/health/ready`).then(
      ({ ok }) => ok,
      () => false,
    )
    if (up) return
    await pause(100)
  }
  throw new Error('the bridge is not ready within 30 s: see .local/bench')
}

/** From each POST to the device having the command, in ms. */
async function commands(url: string, port: number, prefix: string): Promise<number[]> {
  const device = await mqtt.connectAsync(`mqtt://127.0.0.1:${port}`)
  await device.subscribeAsync(`${prefix}/${deviceId(0)}/commands`, { qos: 1 })
  const times: number[] = []
  for (let count = 0; count < COMMANDS; count++) {
    const arrived = new Promise<void>((resolve) => device.once('message', () => resolve()))
    const startMs = performance.now()
    const reply = await fetch(`${url}/devices/${deviceId(0)}/command`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{"command":"measure"}',
    })
    await arrived
    if (reply.status !== 202) throw new Error(`POST answered ${reply.status}`)
    times.push(performance.now() - startMs)
  }
  await device.endAsync()
  return times
}
