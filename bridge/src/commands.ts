// The second MQTT connection: hellos and devices' replies come in, commands go out; ingestion cannot hold it up.
// A command that was answered with an error is not delivered later: it is sent only to a broker that has just
// answered a ping, and what was not acknowledged in time is taken out of MQTT.js's queue with its connection.
import { isDeviceId } from '@iot/shared/contract'
import type { MqttClient } from 'mqtt'
import type { Logger } from 'pino'
import { Counter } from 'prom-client'
import { type Broker, createMqttLink } from './mqtt/link.js'

const NO_MATCHING_SUBSCRIBERS = 0x10 // in a PUBACK of MQTT 5 (3.4.2.1)
const NOT_AUTHORIZED = 0x87
const REFUSED = 0x80 // and above

const hellos = new Counter({ name: 'iot_hello_messages_total', help: 'hello messages', labelNames: ['outcome'] })
const replies = new Counter({ name: 'iot_command_replies_total', help: "devices' replies", labelNames: ['outcome'] })
const commands = new Counter({ name: 'iot_commands_total', help: 'commands', labelNames: ['outcome'] })

/**
 * What became of a command, and whether it was published at all. `closed`: the broker closed the connection instead of
 * acknowledging it, as some do where they do not allow a publish.
 */
export type CommandOutcome =
  | { result: 'acknowledged'; published: true; hadSubscribers: boolean }
  | { result: 'refused'; published: true; reason: string }
  | { result: 'closed'; published: true }
  | { result: 'disconnected' | 'timeout'; published: boolean }

export type ControlConnection = {
  start(): void
  check(): string | null
  /** Publishes a command at QoS 1. @param text the command's JSON, sent as it is; the broker drops it after `ttlMs` */
  send(deviceId: string, text: string, ttlMs: number): Promise<CommandOutcome>
  stop(): Promise<void>
}

export function createControlConnection(
  options: {
    broker: Broker
    clientId: string
    canaryTopic: string
    prefix: string
    timeoutMs: number
    stallMs: number
  },
  onHello: (deviceId: string) => void,
  onReply: (deviceId: string, payload: Buffer) => string,
  logger: Logger,
): ControlConnection {
  const { prefix } = options
  let subscribed = false
  const pinged: (() => void)[] = [] // whom the next PINGREQ is for
  const pings: (() => void)[] = [] // one for each PINGREQ of ours that has no answer yet
  const unheard = new Set<number>() // packet ids of commands that nobody was subscribed to

  const link = createMqttLink(
    {
      name: 'control',
      broker: options.broker,
      clientId: options.clientId,
      topics: [`${options.prefix}/+/hello`, `${options.prefix}/+/commands/ack`],
      canaryTopic: options.canaryTopic,
      stallMs: options.stallMs,
    },
    {
      attach(client) {
        client.on('packetreceive', (packet) => {
          if (packet.cmd === 'pingresp') pings.shift()?.()
          else if (packet.cmd === 'puback' && packet.reasonCode === NO_MATCHING_SUBSCRIBERS) {
            unheard.add(packet.messageId as number)
          }
        })
        client.on('packetsend', (packet) => {
          if (packet.cmd === 'pingreq') pings.push(pinged.shift() ?? (() => {}))
        })
        client.on('message', (from, payload, packet) => {
          const [device = '', ...kind] = from.slice(options.prefix.length + 1).split('/')
          if (kind.join('/') === 'hello') {
            const outcome = packet.retain ? 'retained' : isDeviceId(device) ? 'seen' : 'invalid_device_id'
            hellos.inc({ outcome })
            if (outcome === 'seen') onHello(device)
          } else if (kind.join('/') === 'commands/ack') {
            replies.inc({ outcome: packet.retain ? 'retained' : onReply(device, payload) })
          }
        })
      },
      onSubscribed() {
        subscribed = true
      },
      onLost() {
        subscribed = false
        pinged.length = 0
        pings.length = 0
        unheard.clear()
      },
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

  const publish = (own: MqttClient, deviceId: string, text: string, ttlMs: number, timeoutMs: number) =>
    new Promise<CommandOutcome>((resolve) => {
      let messageId: number | undefined
      let disconnectReason: number | undefined
      const finish = (outcome: CommandOutcome) => {
        clearTimeout(timer)
        own.off('close', closed)
        own.off('disconnect', disconnected)
        resolve(outcome)
        if (outcome.result !== 'acknowledged' && messageId !== undefined) own.removeOutgoingMessage(messageId)
      }
      const disconnected = ({ reasonCode }: { reasonCode?: number }) => {
        disconnectReason = reasonCode
      }
      const closed = () =>
        finish(
          disconnectReason === NOT_AUTHORIZED
            ? { result: 'refused', published: true, reason: 'Not authorized' }
            : { result: 'closed', published: true },
        )
      const timer = setTimeout(() => finish({ result: 'timeout', published: true }), timeoutMs)
      own.once('close', closed)
      own.once('disconnect', disconnected)
      const messageExpiryInterval = Math.ceil(ttlMs / 1000)
      const properties = link.protocolVersion === 5 ? { properties: { messageExpiryInterval } } : {}
      const options = { qos: 1 as const, retain: false, ...properties }
      own.publish(`${prefix}/${deviceId}/commands`, text, options, (error, packet) => {
        if (!error) {
          const hadSubscribers = messageId === undefined || !unheard.delete(messageId)
          return finish({ result: 'acknowledged', published: true, hadSubscribers })
        }
        const isRefused = Number((error as { code?: unknown }).code) >= REFUSED
        const reason =
          (packet as { properties?: { reasonString?: string } } | undefined)?.properties?.reasonString ?? error.message
        finish(isRefused ? { result: 'refused', published: true, reason } : { result: 'closed', published: true })
      })
      messageId = own.getLastMessageId()
    })

  const send = async (deviceId: string, text: string, ttlMs: number): Promise<CommandOutcome> => {
    const own = link.client
    if (!own?.connected) return { result: 'disconnected', published: false }
    const startedMs = performance.now()
    const isAwake = await ping(own, options.timeoutMs)
    if (!own.connected) return { result: 'disconnected', published: false }
    if (!isAwake) return { result: 'timeout', published: false }
    const leftMs = Math.max(options.timeoutMs - (performance.now() - startedMs), 1)
    return publish(own, deviceId, text, ttlMs, leftMs)
  }

  return {
    start: link.connect,
    check: () => (link.client?.connected && subscribed ? null : 'MQTT control: not connected'),
    async send(deviceId, text, ttlMs) {
      const outcome = await send(deviceId, text, ttlMs)
      commands.inc({ outcome: outcome.result })
      return outcome
    },
    stop: link.stop,
  }
}
