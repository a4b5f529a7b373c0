// The ingestion connection: QoS 1, a persistent session, acknowledged only once the message is stored.
//
//   connecting the link tries until the broker is there and has granted the subscription
//   consuming  messages are read; up to `maxInFlight`, or 16 MB, wait for their record to be stored
//   holding    the window is full: the parser stands still and TCP holds the broker back
//   away       no connection, on purpose: Kafka does not accept records, the broker keeps the backlog
//   stopping   nothing more is taken; what is in flight can still be acknowledged
//
// consuming -> holding when full; holding -> consuming when there is room; holding -> away after HOLD_MS, so that the
// broker queues what comes instead of filling its socket; away -> connecting when everything is stored.
import type { IPublishPacket } from 'mqtt'
import type { Logger } from 'pino'
import { Counter, Gauge } from 'prom-client'
import { type AckWindow, createAckWindow, type Held, type Message } from '../ack-window.js'
import { sentBytesOf } from './client.js'
import { type Broker, createMqttLink } from './link.js'
import { acknowledge, deferAcknowledgements, qosOf } from './manual-ack.js'

const HOLD_MS = 10_000
const MAX_IN_FLIGHT_BYTES = 16_000_000
const SESSION_EXPIRY_S = 7 * 86_400
const MIN_KEPT_BYTES = 1_000_000 // what Kafka takes by default: up to this a payload is kept whole as a dead letter
const SPARE_BYTES = 1024 // what a packet may hold beside topic and payload without being worth a copy

const STATES = ['connecting', 'consuming', 'holding', 'away', 'stopping'] as const
type State = (typeof STATES)[number]

const received = new Counter({ name: 'iot_mqtt_received_messages_total', help: 'data messages received' })
const redelivered = new Counter({
  name: 'iot_mqtt_redelivered_messages_total',
  help: 'messages delivered again and recognised',
})
const windows = new Set<AckWindow>()
new Gauge({
  name: 'iot_in_flight_messages',
  help: 'data messages received and not stored yet',
  collect() {
    this.set([...windows].reduce((sum, { unstored }) => sum + unstored, 0))
  },
})
const info = new Gauge({
  name: 'iot_mqtt_info',
  help: '1; its labels say where devices publish',
  labelNames: ['url', 'topic_prefix'],
})
const stateGauge = new Gauge({
  name: 'iot_mqtt_ingestion_state',
  help: '1 for the state that ingestion is in',
  labelNames: ['state'],
})

export type MqttSource = {
  start(): void
  /** Why messages are not being read, in words; null while they are. */
  check(): string | null
  /** Reads nothing more; what is in flight can still be acknowledged. */
  pause(): void
  stop(): Promise<void>
}

export type MqttSourceOptions = {
  broker: Broker
  /** What the topics of data begin with. */
  prefix: string
  clientId: string
  canaryTopic: string
  maxInFlight: number
  /** Larger payloads are kept up to this size at least, and cut where they are larger than Kafka takes. */
  maxPayloadBytes: number
  stallMs: number
}

/** @param accept stores a message, and calls `stored` once when that is done */
export function createMqttSource(
  options: MqttSourceOptions,
  accept: (message: Message, stored: () => void) => void,
  logger: Logger,
): MqttSource {
  const window = createAckWindow({ messages: options.maxInFlight, bytes: MAX_IN_FLIGHT_BYTES })
  windows.add(window)
  info.set({ url: withoutCredentials(options.broker.url), topic_prefix: options.prefix }, 1)
  let state: State = 'connecting'
  let isSettling = false
  let held: (() => void) | undefined
  let holdTimer: NodeJS.Timeout | undefined

  const enter = (next: State) => {
    if (next === state) return
    if (state === 'stopping') throw new Error(`ingestion cannot go on as ${next} once it is stopping`)
    logger.debug({ from: state, to: next, inFlight: window.unstored }, 'ingestion')
    clearTimeout(holdTimer)
    stateGauge.set({ state }, 0)
    stateGauge.set({ state: next }, 1)
    state = next
  }

  const readOn = () => {
    const goOn = held
    held = undefined
    goOn?.()
  }

  /** Once what was stored together is all marked: one write for all its acknowledgements. */
  const settle = () => {
    isSettling = false
    const { client } = link
    if (client?.connected && !client.disconnecting) acknowledge(client, window.takeAcknowledgeable())
    if (state === 'holding' && !window.isFull) {
      enter('consuming')
      readOn()
    } else if (state === 'away' && window.unstored === 0) {
      enter('connecting')
      link.connect()
    }
  }
  const settleSoon = () => {
    if (isSettling) return
    isSettling = true
    queueMicrotask(settle)
  }

  const hold = (goOn: () => void) => {
    held = goOn
    enter('holding')
    holdTimer = setTimeout(() => {
      logger.warn({ inFlight: window.unstored }, 'Kafka does not keep up: leaving the broker, which keeps the backlog')
      enter('away')
      link.leave()
    }, HOLD_MS)
  }

  const receive = (packet: IPublishPacket, goOn: () => void) => {
    const { topic, messageId = 0, dup } = packet
    const qos = qosOf(packet)
    const payload = ownBytes(packet)
    const known = qos > 0 ? window.reclaim(messageId, dup, topic, payload) : null
    if (known) {
      redelivered.inc()
      if (known.isStored) settleSoon()
    } else {
      received.inc()
      const message: Held = {
        topic,
        payload,
        isRetained: packet.retain,
        sentBytes: sentBytesOf(packet),
        packetId: messageId,
        qos,
        isStored: false,
        isUnacknowledged: false,
      }
      window.add(message)
      accept(message, () => {
        window.stored(message)
        settleSoon()
      })
    }
    if (window.isFull) hold(goOn)
    else goOn()
  }

  const link = createMqttLink(
    {
      name: 'ingestion',
      broker: options.broker,
      clientId: options.clientId,
      topics: [`${options.prefix}/+/data`],
      canaryTopic: options.canaryTopic,
      stallMs: options.stallMs,
      keptBytes: Math.max(options.maxPayloadBytes + 1, MIN_KEPT_BYTES),
      session: { expirySeconds: SESSION_EXPIRY_S, receiveMaximum: options.maxInFlight },
    },
    {
      attach(client) {
        deferAcknowledgements(client, (packet, goOn) => {
          // what was parsed already when the connection was left will be delivered again
          if (link.client !== client) return
          if (packet.topic === link.canaryTopic || state === 'stopping') goOn()
          else if (packet.qos > 0 && !packet.messageId)
            client.stream.destroy() // breaks the protocol
          else receive(packet, goOn)
        })
        client.on('connect', ({ sessionPresent }) => {
          if (!sessionPresent) window.forget()
        })
      },
      onSubscribed() {
        if (state === 'connecting') enter('consuming')
      },
      onLost() {
        held = undefined
        window.disconnected()
        if (state === 'consuming' || state === 'holding') enter('connecting')
      },
      isHeld: () => state === 'holding',
    },
    logger,
  )

  return {
    start: link.connect,
    check() {
      if (state === 'away') return 'MQTT ingestion: away until Kafka has stored what was received'
      const problem = link.check()
      return problem === null ? null : `MQTT ingestion: ${problem}`
    },
    pause() {
      enter('stopping')
      readOn()
    },
    async stop() {
      clearTimeout(holdTimer)
      windows.delete(window)
      await link.stop()
    },
  }
}

/** The payload; copied where keeping it would keep a packet's properties in memory as well. */
function ownBytes(packet: IPublishPacket): Buffer {
  const payload = packet.payload as Buffer
  const spare = (packet.length ?? 0) - payload.length - packet.topic.length
  return spare > SPARE_BYTES ? Buffer.from(payload) : payload
}

function withoutCredentials(text: string): string {
  const url = new URL(text)
  url.username = ''
  url.password = ''
  return url.href
}
