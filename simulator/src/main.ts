// A fleet of simulated devices on any broker: hello, readings, commands obeyed, live counts.
import { parseArgs } from 'node:util'
import mqtt, { type MqttClient } from 'mqtt'
import { createDevice, type Device, parseDuration, replyTo } from './device.js'

const DEVICES_PER_CONNECTION = 50
const HELLO_MS = 20_000

const usage =
  'usage: npm run simulate -- --devices 100 --interval 1s [--url mqtt://host:1883] [--prefix devices] [--quiet]'
const fail = (line: string): never => {
  process.stderr.write(`simulator: ${line}\n${usage}\n`)
  process.exit(1)
}

const flags = readFlags()
const count = /^\d+$/.test(flags.devices) ? Number(flags.devices) : fail('--devices must be a whole number')
const intervalMs = parseDuration(flags.interval) ?? fail('--interval must be a duration such as 500ms, 1s or 2m')
if (!URL.canParse(flags.url)) fail('--url must be a URL such as mqtt://127.0.0.1:1883')

const counts = { connected: 0, sent: 0, acknowledged: 0, skipped: 0, commands: 0, not_understood: 0 }
const timers = new Set<NodeJS.Timeout>()
const clients: MqttClient[] = []
let stopping = false

for (let first = 1; first <= count; first += DEVICES_PER_CONNECTION) {
  const last = Math.min(first + DEVICES_PER_CONNECTION - 1, count)
  const ids = Array.from({ length: last - first + 1 }, (_, index) => `sim-${first + index}`)
  clients.push(connect(ids.map((id) => createDevice(id, intervalMs))))
}

const display = setInterval(show, process.stdout.isTTY ? 500 : 10_000)
process.on('SIGINT', () => void stop())
process.on('SIGTERM', () => void stop())

function connect(devices: Device[]): MqttClient {
  const client = mqtt.connect(flags.url, { reconnectPeriod: 1000, reconnectOnConnackError: true, queueQoSZero: false })
  const byId = new Map(devices.map((device) => [device.id, device]))
  let problem = ''
  const publish = (device: Device, kind: string, text: string) => {
    if (stopping) return
    if (!client.connected) {
      counts.skipped++
      return
    }
    counts.sent++
    client.publish(`${flags.prefix}/${device.id}/${kind}`, text, { qos: 1 }, (error) => {
      if (!error) counts.acknowledged++
    })
  }
  const run = (device: Device, delayMs: number) => {
    const timer = setTimeout(() => {
      timers.delete(timer)
      if (device.running) publish(device, 'data', device.reading())
      run(device, device.intervalMs)
    }, delayMs)
    if (stopping) clearTimeout(timer)
    else timers.add(timer)
  }
  const hello = () => {
    for (const device of devices) publish(device, 'hello', '')
  }
  client.on('connect', () => {
    problem = ''
    counts.connected++
    client.subscribe(
      devices.map(({ id }) => `${flags.prefix}/${id}/commands`),
      { qos: 1 },
      () => hello(),
    )
  })
  client.on('close', () => {
    if (problem === '') counts.connected = Math.max(counts.connected - 1, 0)
  })
  client.on('error', (error) => {
    if (error.message !== problem) process.stderr.write(`simulator: ${flags.url}: ${error.message}; retrying\n`)
    problem = error.message
  })
  client.on('message', (topic, payload) => {
    const id = topic.split('/').at(-2) ?? ''
    const understood = byId.get(id)?.obey(payload.toString()) ?? false
    if (understood) counts.commands++
    else counts.not_understood++
    const reply = replyTo(payload.toString(), understood)
    if (reply && client.connected) client.publish(`${flags.prefix}/${id}/commands/ack`, reply, { qos: 1 })
  })
  timers.add(setInterval(hello, HELLO_MS))
  for (const device of devices) run(device, Math.random() * intervalMs)
  return client
}

function show() {
  if (flags.quiet) return
  const line = Object.entries(counts)
    .map(([name, value]) => `${name.replace('_', ' ')} ${value}`)
    .join('  ')
  process.stdout.write(process.stdout.isTTY ? `\r\x1b[K${count} devices  ${line}` : `${count} devices  ${line}\n`)
}

async function stop() {
  if (stopping) process.exit(1)
  stopping = true
  clearInterval(display)
  for (const timer of timers) clearTimeout(timer)
  const ended = Promise.all(clients.map((client) => client.endAsync(!client.connected)))
  await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 1500))])
  show()
  if (process.stdout.isTTY && !flags.quiet) process.stdout.write('\n')
  process.exit(0)
}

function readFlags() {
  try {
    return parseArgs({
      options: {
        devices: { type: 'string', default: '10' },
        interval: { type: 'string', default: '1s' },
        url: { type: 'string', default: process.env.MQTT_URL || 'mqtt://127.0.0.1:1883' },
        prefix: { type: 'string', default: process.env.MQTT_TOPIC_PREFIX || 'devices' },
        quiet: { type: 'boolean', default: false },
      },
    }).values
  } catch (error) {
    return fail((error as Error).message)
  }
}
