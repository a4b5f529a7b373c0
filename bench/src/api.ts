// The REST API with a hundred thousand devices online: how long calls take, and what they cost ingestion.
import { Agent, get } from 'node:http'
import { freePort } from '@iot/stack/servers'
import mqtt from 'mqtt'
import * as contenders from './contenders.js'
import { type Backlog, createFeed, deviceId, fillMqtt } from './load.js'
import { measure, pause, type Rig, usage } from './rig.js'

const ONLINE = 100_000
const CALL_EVERY_MS = 100
const CALLS = 200
const COMMANDS = 200

export type Api = {
  online: number
  /** `GET /devices` while nothing else happens, in ms. */
  quietP50: number
  quietP99: number
  /** The same while a backlog is ingested as fast as it goes. */
  busyP50: number
  busyP99: number
  /** From `POST …/command` to the device having it, in ms. */
  commandP50: number
  commandP99: number
  /** Ingestion from a backlog, msg/s, alone and with ten `GET /devices` a second; medians. */
  ingestAlone: number
  ingestWithCalls: number
  /** The median of the runs' ratios, each with its neighbour, in percent. */
  slowedBy: number
  /** What a device that is online costs the bridge, in bytes. */
  bytesPerDevice: number
}

export async function api(rig: Rig, backlog: Backlog, runs: number): Promise<Api> {
  const topic = await rig.createTopic()
  const port = rig.cluster.mosquitto.port
  const apiPort = await freePort()
  const target = { prefix: rig.name('devices'), topic, clientId: rig.name('bridge'), group: '', apiPort }
  const url = `http://127.0.0.1:${apiPort}`
  const program = contenders.bridge(rig, target)
  const [quiet, busy]: [number[], number[]] = [[], []]
  const callDevices = async (times: number[]) => {
    const startMs = performance.now()
    const bytes = await sizeOf(`${url}/devices`)
    times.push(performance.now() - startMs)
    if (bytes !== ONLINE * (deviceId(0).length + 3) + 1) throw new Error(`not ${ONLINE} devices: ${bytes} bytes`)
  }
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
    for (let call = 0; call < CALLS; call++) {
      await callDevices(quiet)
      await pause(CALL_EVERY_MS / 2)
    }
    const commandTimes = await commands(url, port, target.prefix)
    const drain = async (times?: number[]) => {
      const before = await rig.inKafka(topic)
      process.kill(running.pid, 'SIGSTOP') // the backlog is all there before it starts
      await fillMqtt(port, target.prefix, backlog)
      process.kill(running.pid, 'SIGCONT')
      const timer = times ? setInterval(() => void callDevices(times).catch(() => {}), CALL_EVERY_MS) : undefined
      const counted = async () => (await rig.inKafka(topic)) - before
      const { perSecond } = await measure({}, counted, backlog.messages).finally(() => clearInterval(timer))
      return perSecond
    }
    await drain()
    const [alone, withCalls]: [number[], number[]] = [[], []]
    for (let run = 0; run < runs; run++) {
      alone.push(await drain())
      withCalls.push(await drain(busy))
    }
    return {
      online: ONLINE,
      quietP50: share(0.5, quiet),
      quietP99: share(0.99, quiet),
      busyP50: share(0.5, busy),
      busyP99: share(0.99, busy),
      commandP50: share(0.5, commandTimes),
      commandP99: share(0.99, commandTimes),
      ingestAlone: share(0.5, alone),
      ingestWithCalls: share(0.5, withCalls),
      slowedBy:
        100 *
        (1 -
          share(
            0.5,
            withCalls.map((value, run) => value / (alone[run] ?? value)),
          )),
      bytesPerDevice,
    }
  } finally {
    await running.stop()
    await rig.deleteTopic(topic)
  }
}

const share = (part: number, values: number[]) =>
  values.toSorted((a, b) => a - b)[Math.min(Math.floor(part * values.length), values.length - 1)] ?? 0

/** Reads an answer to its end and only counts it, so that the caller takes little of the machine. */
const agent = new Agent({ keepAlive: true })
const sizeOf = (url: string) =>
  new Promise<number>((resolve, reject) => {
    get(url, { agent }, (reply) => {
      let bytes = 0
      reply.on('data', (chunk: Buffer) => {
        bytes += chunk.length
      })
      reply.on('end', () => resolve(bytes))
    }).on('error', reject)
  })

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
