// One connection to the broker with its subscriptions, kept up: MQTT 5, or 3.1.1 where the broker refuses 5; subscribed
// again at every connect, since a broker may have lost its sessions and MQTT.js may have lost the link before the SUBACK.
//
// A connection that looks alive and brings nothing is found by a canary: when nothing has arrived for a while, a message
// to a topic of the connection's own must come back. When that stays away too, the client is built anew.
import { describe } from '@iot/shared/errors'
import mqtt, { type IClientOptions, type ISubscriptionMap, type MqttClient } from 'mqtt'
import type { Logger } from 'pino'
import { Counter } from 'prom-client'

const KEEPALIVE_S = 15 // a half-open connection is noticed after 1.5 times this
const RECONNECT_MS = 1000
const CONNECT_TIMEOUT_MS = 10_000
const UNACCEPTABLE_PROTOCOL = [1, 0x84] // in a CONNACK of 3.1.1, and of 5
const SESSION_TAKEN_OVER = 0x8e
const REFUSED = 0x80 // and above, in a SUBACK

const CANARY_BYTES = 'canary'

const stalls = new Counter({
  name: 'iot_mqtt_stalls_total',
  help: 'connections given up because nothing arrived any more, not even the canary',
  labelNames: ['connection'],
})
const connects = new Counter({
  name: 'iot_mqtt_connects_total',
  help: 'connections made to the broker',
  labelNames: ['connection'],
})

/** Where the broker is and what it is shown; certificates and keys are PEM text. */
export type Broker = { url: string } & Pick<IClientOptions, 'username' | 'password' | 'ca' | 'cert' | 'key'>

export type LinkOptions = {
  /** Names the connection in logs and metrics. */
  name: string
  broker: Broker
  clientId: string
  topics: string[]
  /** How long nothing may arrive, the canary included, before the client is built anew; 0 for ever. */
  stallMs: number
  /** A persistent session; without one the session is clean. */
  session?: { expirySeconds: number; receiveMaximum: number }
}

export type LinkEvents = {
  /** Adds the listeners to a client that was just made. */
  attach(client: MqttClient): void
  /** The broker has granted the subscriptions: messages flow. */
  onSubscribed(): void
  /** The connection is gone, by itself or given up. */
  onLost(): void
  /** Whether messages are kept back by our own will, so that silence means nothing. */
  isHeld?(): boolean
}

export type MqttLink = {
  /** The client of now: another one after each `connect()`. */
  readonly client: MqttClient | undefined
  readonly protocolVersion: 4 | 5
  /** Messages on this topic are the connection's own. */
  readonly canaryTopic: string
  connect(): void
  /** Drops the connection at once, and stays away until `connect()`. */
  leave(): void
  /** Sends what is queued, then disconnects. */
  stop(): Promise<void>
}

export function createMqttLink(options: LinkOptions, events: LinkEvents, logger: Logger): MqttLink {
  const { name, broker, clientId, topics, stallMs, session } = options
  const { url, ...credentials } = broker
  const canaryTopic = `${clientId}/canary`
  stalls.inc({ connection: name }, 0) // so that the first one is an increase
  let client: MqttClient | undefined
  let protocolVersion: 4 | 5 = 5
  let subscribed = false
  let heard = false // since the watchdog looked last
  let heardMs = 0 // when it saw that
  let canaryWorks = false // it has come back once: a broker may forbid the topic
  let watchdog: NodeJS.Timeout | undefined

  const subscribe = (own: MqttClient) => {
    // rh 1: retained messages only with a new subscription; `resubscribe` makes MQTT.js send what it has sent before
    const extra = protocolVersion === 5 ? { rh: 1 } : {}
    const wanted = Object.fromEntries(topics.map((topic) => [topic, { qos: 1, ...extra }]))
    const canary = stallMs > 0 ? { [canaryTopic]: { qos: 0, ...extra } } : {}
    own.subscribe({ ...wanted, ...canary, resubscribe: true } as ISubscriptionMap, (err, granted) => {
      const refused = granted?.find(({ topic, qos }) => qos >= REFUSED && topic !== canaryTopic)
      if (!err && !refused) {
        subscribed = true
        heardMs = performance.now()
        logger.info({ connection: name, topics, protocolVersion }, 'broker connected')
        events.onSubscribed()
      } else if (own.connected) {
        const error = err?.message ?? `refused with ${refused?.qos}`
        logger.error({ connection: name, topics, error }, 'subscription failed, trying on')
        setTimeout(() => own.connected && subscribe(own), RECONNECT_MS).unref()
      }
    })
  }

  const lost = () => {
    subscribed = false
    events.onLost()
  }

  const watch = () => {
    if (heard || !subscribed || events.isHeld?.()) {
      heard = false
      heardMs = performance.now()
      return
    }
    const silentMs = performance.now() - heardMs
    if (canaryWorks && silentMs > stallMs) {
      stalls.inc({ connection: name })
      logger.warn(
        { connection: name, silentMs: Math.round(silentMs) },
        'connected, but nothing arrives: connecting anew',
      )
      link.leave()
      connect()
    } else if (silentMs > stallMs / 3) client?.publish(canaryTopic, CANARY_BYTES, { qos: 0 }, () => {})
  }

  const connect = () => {
    const own = mqtt.connect(url, {
      ...credentials,
      clientId,
      protocolVersion,
      clean: !session,
      ...(session && protocolVersion === 5
        ? {
            properties: { sessionExpiryInterval: session.expirySeconds, receiveMaximum: session.receiveMaximum },
          }
        : {}),
      keepalive: KEEPALIVE_S,
      connectTimeout: CONNECT_TIMEOUT_MS,
      reconnectPeriod: RECONNECT_MS * (0.75 + Math.random() / 2), // many bridges do not come back at once
      reconnectOnConnackError: true,
      resubscribe: false,
      queueQoSZero: false,
      log: () => {}, // its debug lines cost the data path even while nobody reads them
    })
    client = own
    const told = new Set<string>() // since the last connection: a broker may end a handshake in more than one way
    events.attach(own)
    own.on('packetreceive', (packet) => {
      if (packet.cmd !== 'publish') return
      heard = true
      canaryWorks ||= packet.topic === canaryTopic
    })
    own.on('close', () => {
      if (client === own) lost()
    })
    own.on('connect', () => {
      told.clear()
      connects.inc({ connection: name })
      subscribe(own)
    })
    own.on('disconnect', ({ reasonCode }) => {
      const takenOver = reasonCode === SESSION_TAKEN_OVER
      const what = takenOver
        ? 'session taken over by another client with this MQTT_CLIENT_ID'
        : 'broker disconnected us'
      logger.warn({ connection: name, reasonCode }, what)
    })
    own.on('error', (error) => {
      const code = (error as { code?: number | string }).code
      if (protocolVersion === 5 && UNACCEPTABLE_PROTOCOL.includes(Number(code))) {
        logger.info({ connection: name }, 'the broker refuses MQTT 5: using 3.1.1')
        protocolVersion = 4
        link.leave()
        connect()
      } else if (!told.has(describe(error))) {
        told.add(describe(error))
        logger.warn({ connection: name, error: describe(error) }, 'broker not reached, trying on')
      }
    })
  }

  const link: MqttLink = {
    get client() {
      return client
    },
    get protocolVersion() {
      return protocolVersion
    },
    canaryTopic,
    connect() {
      if (stallMs > 0) watchdog ??= setInterval(watch, stallMs / 6)
      connect()
    },
    leave() {
      client?.end(true)
      lost()
    },
    async stop() {
      clearInterval(watchdog)
      await client?.endAsync(!client.connected)
    },
  }
  return link
}
