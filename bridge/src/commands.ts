// The second MQTT connection: hellos come in, commands go out; ingestion cannot hold it up.
// A command that was answered with an error is not delivered later: it is sent only to a broker that has just
// answered a ping, and what was not acknowledged in time is taken out of MQTT.js's queue with its connection.
import { isDeviceId } from '@iot/shared/contract'
import type { MqttClient } from 'mqtt'
import type { Logger } from 'pino'
import { Counter } from 'prom-client'
import { deviceIdOf } from './ingest.js'
import { createMqttLink } from './mqtt-link.js'

const hellos = new Counter({ name: 'iot_hellos_total', help: 'hello messages', labelNames: ['outcome'] })
const commands = new Counter({ name: 'iot_commands_total', help: 'commands', labelNames: ['outcome'] })

/** What became of a command: the broker has it, the broker is not connected, or it did not answer in time. */
export type CommandOutcome = 'acknowledged' | 'disconnected' | 'timeout'

export type ControlConnection = {
  start(): void
  check(): string | null
  /** Publishes a command at QoS 1. @param text the command's JSON, sent as it is */
  send(deviceId: string, text: string): Promise<CommandOutcome>
  stop(): Promise<void>
}

export function createControlConnection(
  options: { url: string; clientId: string; prefix: string; timeoutMs: number; expirySeconds: number },
  onHello: (deviceId: string) => void,
  logger: Logger,
): ControlConnection {
  let subscribed = false
  const pinged: (() => void)[] = [] // whom the next PINGREQ is for
  const pings: (() => void)[] = [] // one for each PINGREQ of ours that has no answer yet

  const link = createMqttLink(
    { name: 'control', url: options.url, clientId: options.clientId, topic: `${options.prefix}/+/hello` },
    (client) => {
      client.on('close', () => {
        subscribed = false
        pinged.length = 0
        pings.length = 0
      })
      client.on('packetreceive', (packet) => {
        if (packet.cmd === 'pingresp') pings.shift()?.()
      })
      client.on('packetsend', (packet) => {
        if (packet.cmd === 'pingreq') pings.push(pinged.shift() ?? (() => {}))
      })
      client.on('message', (from, _payload, packet) => {
        const deviceId = deviceIdOf(from, options.prefix)
        const outcome = packet.retain ? 'retained' : isDeviceId(deviceId) ? 'seen' : 'invalid_device_id'
        hellos.inc({ outcome })
        if (outcome === 'seen') onHello(deviceId)
      })
    },
    () => {
      subscribed = true
    },
    logger,
  )

  /** Whether the broker is awake: bytes sent to a frozen one would be delivered when it wakes up. */
  const ping = (own: MqttClient, timeoutMs: number) =>
    new Promise<boolean>((resolve) => {
      const timer = setTimeout(() => resolve(false), timeoutMs)
      pinged.push(() => {
        clearTimeout(timer)
        resolve(true)
      })
      own.sendPing()
    })

  const publish = (own: MqttClient, deviceId: string, text: string, timeoutMs: number) =>
    new Promise<CommandOutcome>((resolve) => {
      let messageId: number | undefined
      const withdraw = (outcome: CommandOutcome) => () => {
        finish(outcome)
        if (messageId !== undefined) own.removeOutgoingMessage(messageId)
      }
      const late = withdraw('timeout')
      const lost = withdraw('disconnected')
      const timer = setTimeout(late, timeoutMs)
      const finish = (outcome: CommandOutcome) => {
        clearTimeout(timer)
        own.off('close', lost)
        resolve(outcome)
      }
      own.once('close', lost)
      const properties =
        link.protocolVersion === 5 ? { properties: { messageExpiryInterval: options.expirySeconds } } : {}
      own.publish(`${options.prefix}/${deviceId}/commands`, text, { qos: 1, retain: false, ...properties }, (err) =>
        finish(err ? 'disconnected' : 'acknowledged'),
      )
      messageId = own.getLastMessageId()
    })

  const send = async (deviceId: string, text: string): Promise<CommandOutcome> => {
    const own = link.client
    if (!own?.connected) return 'disconnected'
    const startedMs = performance.now()
    if (!(await ping(own, options.timeoutMs))) return own.connected ? 'timeout' : 'disconnected'
    if (!own.connected) return 'disconnected'
    const leftMs = Math.max(options.timeoutMs - (performance.now() - startedMs), 1)
    return publish(own, deviceId, text, leftMs)
  }

  return {
    start: link.connect,
    check: () => (link.client?.connected && subscribed ? null : 'MQTT control: not connected'),
    async send(deviceId, text) {
      const outcome = await send(deviceId, text)
      commands.inc({ outcome })
      return outcome
    },
    stop: link.stop,
  }
}
