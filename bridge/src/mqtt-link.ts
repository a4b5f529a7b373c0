// One connection to the broker with one subscription, kept up: MQTT 5, or 3.1.1 where the broker refuses 5; subscribed
// again at every connect, since a broker may have lost its sessions and MQTT.js may have lost the link before the SUBACK.
import mqtt, { type ISubscriptionMap, type MqttClient } from 'mqtt'
import type { Logger } from 'pino'
import { Counter } from 'prom-client'

const KEEPALIVE_S = 15 // a half-open connection is noticed after 1.5 times this
const RECONNECT_MS = 1000
const CONNECT_TIMEOUT_MS = 10_000
const UNACCEPTABLE_PROTOCOL = [1, 0x84] // in a CONNACK of 3.1.1, and of 5
const SESSION_TAKEN_OVER = 0x8e
const REFUSED = 0x80 // and above, in a SUBACK

const connects = new Counter({
  name: 'iot_mqtt_connects_total',
  help: 'connections made to the broker',
  labelNames: ['connection'],
})

export type LinkOptions = {
  /** Names the connection in logs and metrics. */
  name: string
  url: string
  clientId: string
  topic: string
  /** A persistent session; without one the session is clean. */
  session?: { expirySeconds: number; receiveMaximum: number }
}

export type MqttLink = {
  /** The client of now: another one after each `connect()`. */
  readonly client: MqttClient | undefined
  readonly protocolVersion: 4 | 5
  connect(): void
  /** Drops the connection at once, and stays away until `connect()`. */
  leave(): void
  /** Sends what is queued, then disconnects. */
  stop(): Promise<void>
}

/**
 * @param attach adds the listeners to a client that was just made
 * @param onSubscribed the broker has granted the subscription: messages flow
 */
export function createMqttLink(
  options: LinkOptions,
  attach: (client: MqttClient) => void,
  onSubscribed: () => void,
  logger: Logger,
): MqttLink {
  const { name, url, clientId, topic, session } = options
  let client: MqttClient | undefined
  let protocolVersion: 4 | 5 = 5

  const subscribe = (own: MqttClient) => {
    // rh 1: retained messages only with a new subscription; `resubscribe` makes MQTT.js send what it has sent before
    const wanted = { [topic]: { qos: 1, ...(protocolVersion === 5 ? { rh: 1 } : {}) }, resubscribe: true }
    own.subscribe(wanted as ISubscriptionMap, (err, granted) => {
      const refused = granted?.find(({ qos }) => qos >= REFUSED)
      if (!err && !refused) {
        logger.info({ connection: name, topic, protocolVersion }, 'broker connected')
        onSubscribed()
      } else if (own.connected) {
        const error = err?.message ?? `refused with ${refused?.qos}`
        logger.error({ connection: name, topic, error }, 'subscription failed, trying on')
        setTimeout(() => own.connected && subscribe(own), RECONNECT_MS).unref()
      }
    })
  }

  const connect = () => {
    const own = mqtt.connect(url, {
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
    })
    client = own
    let lastProblem = ''
    attach(own)
    own.on('connect', () => {
      lastProblem = ''
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
        own.end(true)
        connect()
      } else if (error.message !== lastProblem) {
        lastProblem = error.message
        logger.warn({ connection: name, error: error.message || String(code) }, 'broker not reached, trying on')
      }
    })
  }

  return {
    get client() {
      return client
    },
    get protocolVersion() {
      return protocolVersion
    },
    connect,
    leave: () => void client?.end(true),
    async stop() {
      await client?.endAsync(!client.connected)
    },
  }
}
