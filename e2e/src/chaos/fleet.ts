// A fleet that counts: devices with a sequence number in each reading, sent at QoS 1 at a steady rate over a few
// connections. A reading counts as sent when its PUBACK came. A device without a connection says nothing.
import mqtt, { type MqttClient } from 'mqtt'
import { payloadOf, type Sent } from './check.js'

const TICK_MS = 10
const CONNECTIONS = 8

export type Fleet = {
  readonly sent: Sent
  start(): Promise<void>
  /** Sends nothing more, and waits until all that was sent is acknowledged. */
  stop(): Promise<void>
}

export function createFleet(options: { url: string; prefix: string; ids: string[]; ratePerSecond: number }): Fleet {
  const { url, prefix, ids, ratePerSecond } = options
  const sent: Sent = new Map(ids.map((id) => [id, []]))
  const clients: MqttClient[] = []
  let ticker: NodeJS.Timeout | undefined
  let next = 0
  let unacknowledged = 0
  let idle = () => {}

  const publish = (index: number) => {
    const device = index % ids.length
    const client = clients[device % clients.length] // a device stays on one connection
    const id = ids[device] ?? ''
    const times = sent.get(id)
    if (!client?.connected || !times) return
    const seq = times.push(undefined) - 1
    unacknowledged++
    client.publish(`${prefix}/${id}/data`, payloadOf(id, seq), { qos: 1 }, (error) => {
      if (!error) times[seq] = Date.now()
      if (--unacknowledged === 0) idle()
    })
  }

  return {
    sent,
    async start() {
      for (let count = 0; count < Math.min(CONNECTIONS, ids.length); count++) {
        const client = mqtt.connect(url, { reconnectPeriod: 500, reconnectOnConnackError: true })
        client.on('error', () => {})
        clients.push(client)
      }
      await Promise.all(clients.map((client) => new Promise((resolve) => client.once('connect', resolve))))
      const startedMs = performance.now()
      let due = 0
      ticker = setInterval(() => {
        const target = ((performance.now() - startedMs) * ratePerSecond) / 1000
        due = Math.max(due, target - ratePerSecond) // what a stall of this process left out is not made up for
        for (; due < target; due++) publish(next++)
      }, TICK_MS)
    },
    async stop() {
      clearInterval(ticker)
      if (unacknowledged > 0) {
        await new Promise<void>((resolve) => {
          idle = resolve
        })
      }
      await Promise.all(clients.map((client) => client.endAsync(true)))
    },
  }
}
