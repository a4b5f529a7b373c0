// The second MQTT connection: hellos and devices' replies come in, commands go out; ingestion cannot hold it up.
// A command that was answered with an error is not delivered later: it is sent only to a broker that has just
// answered a ping, and what was not acknowledged in time is taken out of MQTT.js's queue with its connection.
import { isDeviceId } from '@iot/shared/contract'
import { describe } from '@iot/shared/errors'
import type { Logger } from 'pino'
import { Counter } from 'prom-client'
import { type Broker, createMqttLink, type IDisconnectPacket, type MqttClient, ReasonCodes } from './mqtt/link.js'
import { parseTopic } from './topics.js'

const NO_MATCHING_SUBSCRIBERS = 0x10 // in a PUBACK of MQTT 5 (3.4.2.1)
const REFUSED = 0x80 // and above: the reason codes of failures
const GOING_AWAY = [0x89, 0x8b, 0x8d, 0x8e, 0x9c, 0x9d] // busy, shutting down, keep alive, taken over, moved

const hellos = new Counter({ name: 'iot_hello_messages_total', help: 'hello messages', labelNames: ['outcome'] })
const replies = new Counter({ name: 'iot_command_replies_total', help: "devices' replies", labelNames: ['outcome'] })
const commands = new Counter({ name: 'iot_commands_total', help: 'commands', labelNames: ['outcome'] })

/**
 * What became of a command. `refused`: the broker said that it does not take it, and why. `closed`: the broker closed
 * the connection instead of acknowledging it, as some do where they do not allow a publish. `published`: whether the
 * broker may have it all the same.
 */
export type CommandOutcome =
  | { result: 'acknowledged'; hadSubscribers: boolean }
  | { result: 'refused'; reason: string }
  | { result: 'closed' }
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
  onHello: (deviceId: string, payload: Buffer) => string,
  onReply: (deviceId: string, payload: Buffer) => string,
  logger: Logger,
): ControlConnection {
  const { prefix } = options
  const pinged: (() => void)[] = [] // whom the next PINGREQ is for
  const pings: (() => void)[] = [] // one for each PINGREQ of ours that has no answer yet
  const unheard = new Set<number>() // packet ids of commands that nobody was subscribed to
  const unacknowledged = new Set<(outcome: CommandOutcome) => void>() // the commands that were published

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
          const topic = parseTopic(from, prefix)
          if (topic?.kind === 'hello') {
            const isIgnored = packet.retain || !isDeviceId(topic.deviceId)
            const ignored = packet.retain ? 'retained' : 'invalid_device_id'
            hellos.inc({ outcome: isIgnored ? ignored : onHello(topic.deviceId, payload) })
          } else if (topic?.kind === 'commands/ack') {
            replies.inc({ outcome: packet.retain ? 'retained' : onReply(topic.deviceId, payload) })
          }
        })
        let goodbye: IDisconnectPacket | undefined
        client.on('disconnect', (packet) => {
          goodbye = packet
        })
        client.on('close', () => {
          const outcome = outcomeOfClose(client.disconnecting, goodbye)
          for (const finish of unacknowledged) finish(outcome)
        })
      },
      onSubscribed() {},
      onLost() {
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
      const finish = (outcome: CommandOutcome) => {
        if (!unacknowledged.delete(finish)) return
        clearTimeout(timer)
        resolve(outcome)
        if (outcome.result !== 'acknowledged' && messageId !== undefined) own.removeOutgoingMessage(messageId)
      }
      const timer = setTimeout(() => finish({ result: 'timeout', published: true }), timeoutMs)
      unacknowledged.add(finish)
      const messageExpiryInterval = Math.ceil(ttlMs / 1000)
      const properties = link.protocolVersion === 5 ? { properties: { messageExpiryInterval } } : {}
      const publishOptions = { qos: 1 as const, retain: false, ...properties }
      own.publish(`${prefix}/${deviceId}/commands`, text, publishOptions, (error, packet) => {
        if (!error) {
          const hadSubscribers = messageId === undefined || !unheard.delete(messageId)
          return finish({ result: 'acknowledged', hadSubscribers })
        }
        const { code } = error as { code?: number | string }
        const isRefused = typeof code === 'number' && code >= REFUSED
        finish(isRefused ? { result: 'refused', reason: reasonOf(code, packet) } : { result: 'closed' })
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
    check() {
      const problem = link.check()
      return problem === null ? null : `MQTT control: ${problem}`
    },
    async send(deviceId, text, ttlMs) {
      const outcome = await send(deviceId, text, ttlMs)
      const isUnheard = outcome.result === 'acknowledged' && !outcome.hadSubscribers
      commands.inc({ outcome: isUnheard ? 'no_subscribers' : outcome.result })
      return outcome
    },
    stop: link.stop,
  }
}

/** What a command that was not acknowledged met when its connection closed, on our side or the broker's. */
function outcomeOfClose(isOurs: boolean, goodbye: IDisconnectPacket | undefined): CommandOutcome {
  if (isOurs) return { result: 'disconnected', published: true }
  const code = goodbye?.reasonCode
  if (code === undefined || code < REFUSED || GOING_AWAY.includes(code)) return { result: 'closed' }
  return { result: 'refused', reason: reasonOf(code, goodbye) }
}

/** The broker's own words where it gives some, else what its code means. */
function reasonOf(code: number, packet: object | undefined): string {
  const { properties } = (packet ?? {}) as { properties?: { reasonString?: string } }
  return describe(properties?.reasonString ?? (ReasonCodes as Record<number, string>)[code] ?? `code ${code}`)
}
