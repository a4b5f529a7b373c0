// The ingestion connection: QoS 1, a persistent session, PUBACK only once the message is stored.
//
//   away       no connection, on purpose: Kafka does not take records, the broker keeps the backlog
//   connecting MQTT.js tries until the broker is there; the subscription is checked at every connect
//   consuming  messages are read; up to `maxInFlight` wait for their record to be stored
//   holding    the limit is reached: the parser stands still and TCP holds the broker back
//
// consuming -> holding at the limit; holding -> consuming when one is stored; holding -> away after HOLD_MS, since a
// parser that stands still cannot read the broker's PINGRESP either; away -> connecting when the window has emptied.
import mqtt, { type IPublishPacket, type ISubscriptionMap, type MqttClient } from 'mqtt'
import type { Logger } from 'pino'
import { Counter } from 'prom-client'
import { type Delivery, deferAcknowledgements } from './deferred-ack.js'

const KEEPALIVE_S = 15
const HOLD_MS = 10_000
const RECONNECT_MS = 1000
const SESSION_EXPIRY_S = 7 * 86_400

const reconnects = new Counter({ name: 'iot_mqtt_connects_total', help: 'connections made to the broker' })
const received = new Counter({ name: 'iot_received_total', help: 'data messages received' })
const ignored = new Counter({ name: 'iot_ignored_total', help: 'messages ignored', labelNames: ['reason'] })

/** One received message that waits to be stored. `delivery` is null once the connection it came by is gone. */
type Pending = { packet: IPublishPacket; delivery: Delivery | null; stored: boolean }

export type MqttSource = {
  start(): void
  check(): string | null
  /** Reads nothing more; what is in flight can still be acknowledged. */
  pause(): void
  stop(): Promise<void>
}

/**
 * @param handle stores one message and calls back when that is done, in the order of the calls
 */
export function createMqttSource(
  options: { url: string; clientId: string; topic: string; maxInFlight: number },
  handle: (packet: IPublishPacket, stored: () => void) => void,
  logger: Logger,
): MqttSource {
  let client: MqttClient | undefined
  let protocolVersion: 4 | 5 = 5
  let state: 'connecting' | 'consuming' | 'holding' | 'away' = 'connecting'
  let window: Pending[] = [] // of this connection, in order of arrival: PUBACKs go out from its head (MQTT 5, 4.6)
  let unclaimed = new Map<number, Pending>() // of the connection before, not acknowledged: the broker sends them again
  let inFlight = 0
  let resume: (() => void) | null = null
  let holdTimer: NodeJS.Timeout | undefined
  let stopping = false

  const acknowledgeStored = () => {
    let count = 0
    while (window[count]?.stored) window[count++]?.delivery?.acknowledge()
    if (count > 0) window = window.slice(count)
  }

  const release = () => {
    clearTimeout(holdTimer)
    const readOn = resume
    resume = null
    if (state === 'holding') state = 'consuming'
    readOn?.()
  }

  const onStored = (pending: Pending) => {
    pending.stored = true
    inFlight--
    if (pending.packet.qos > 0) acknowledgeStored()
    if (stopping || inFlight >= options.maxInFlight) return
    if (state === 'holding') release()
    else if (state === 'away' && inFlight === 0) connect()
  }

  const hold = (readOn: () => void) => {
    state = 'holding'
    resume = readOn
    holdTimer = setTimeout(() => {
      logger.warn({ inFlight }, 'Kafka does not keep up: leaving the broker, which keeps the backlog')
      state = 'away'
      client?.end(true)
    }, HOLD_MS)
  }

  /** The same message again, after a reconnect: what is held of it goes on, nothing is stored twice. */
  const claim = (packet: IPublishPacket): Pending | undefined => {
    const before = unclaimed.get(packet.messageId ?? -1)
    if (!packet.dup || !before) return undefined
    unclaimed.delete(packet.messageId ?? -1)
    const same =
      before.packet.topic === packet.topic &&
      Buffer.compare(before.packet.payload as Buffer, packet.payload as Buffer) === 0
    return same ? before : undefined
  }

  const receive = (delivery: Delivery) => {
    const { packet, readOn } = delivery
    if (stopping) return readOn() // not acknowledged, so the broker keeps it
    if (!packet.dup && packet.qos > 0) unclaimed.clear() // what comes again comes first (MQTT 5, 4.4 and 4.6)
    const known = claim(packet)
    const pending = known ?? { packet, delivery, stored: false }
    pending.delivery = delivery
    if (packet.qos > 0) window.push(pending)
    if (known) {
      acknowledgeStored()
    } else {
      inFlight++
      received.inc()
      if (packet.retain) {
        ignored.inc({ reason: 'retained' })
        onStored(pending)
      } else handle(packet, () => onStored(pending))
    }
    if (inFlight < options.maxInFlight) readOn()
    else hold(readOn)
  }

  const forgetConnection = () => {
    clearTimeout(holdTimer)
    resume = null
    for (const pending of window) {
      pending.delivery = null
      unclaimed.set(pending.packet.messageId ?? -1, pending)
    }
    window = []
    if (state !== 'away') state = 'connecting'
  }

  const subscribe = (own: MqttClient) => {
    const wanted = { [options.topic]: { qos: 1, ...(protocolVersion === 5 ? { rh: 1 } : {}) }, resubscribe: true }
    own.subscribe(wanted as ISubscriptionMap, (err, granted) => {
      const refused = granted?.find((grant) => grant.qos >= 128)
      if (!err && !refused) {
        if (state === 'connecting') state = 'consuming'
        logger.info({ topic: options.topic, protocolVersion }, 'ingestion connected')
      } else if (own.connected) {
        logger.error(
          { error: err?.message ?? `refused with ${refused?.qos}`, topic: options.topic },
          'subscription failed',
        )
        setTimeout(() => own.connected && subscribe(own), RECONNECT_MS).unref()
      }
    })
  }

  const connect = () => {
    state = 'connecting'
    const own = mqtt.connect(options.url, {
      clientId: options.clientId,
      clean: false,
      protocolVersion,
      keepalive: KEEPALIVE_S,
      reconnectPeriod: RECONNECT_MS,
      connectTimeout: 10_000,
      reconnectOnConnackError: true,
      resubscribe: false,
      queueQoSZero: false,
      ...(protocolVersion === 5
        ? { properties: { sessionExpiryInterval: SESSION_EXPIRY_S, receiveMaximum: options.maxInFlight } }
        : {}),
    })
    client = own
    let lastProblem = ''
    deferAcknowledgements(own, receive)
    own.on('connect', (connack) => {
      lastProblem = ''
      reconnects.inc()
      if (!connack.sessionPresent) unclaimed = new Map() // nothing comes again: what is held is stored, not acknowledged
      subscribe(own)
    })
    own.on('close', () => {
      if (client === own) forgetConnection()
    })
    own.on('disconnect', (packet) => {
      logger.warn(
        { reasonCode: packet.reasonCode },
        packet.reasonCode === 0x8e
          ? 'session taken over by another client with this MQTT_CLIENT_ID'
          : 'broker ended the connection',
      )
    })
    own.on('error', (error) => {
      const code = (error as { code?: number | string }).code
      if (protocolVersion === 5 && (code === 1 || code === 0x84)) {
        logger.info('the broker refuses MQTT 5: using 3.1.1')
        protocolVersion = 4
        own.end(true)
        forgetConnection()
        connect()
      } else if (error.message !== lastProblem) {
        lastProblem = error.message
        logger.warn({ error: error.message || String(code) }, 'broker not reached, trying on')
      }
    })
  }

  return {
    start: connect,
    check: () => (state === 'consuming' || state === 'holding' ? null : `MQTT ingestion: ${state}`),
    pause() {
      stopping = true
      release()
    },
    async stop() {
      clearTimeout(holdTimer)
      await client?.endAsync(!client.connected)
    },
  }
}
