// The ingestion connection: QoS 1, a persistent session, PUBACK only once the message is stored.
//
//   away       no connection, on purpose: Kafka does not take records, the broker keeps the backlog
//   connecting MQTT.js tries until the broker is there; the subscription is checked at every connect
//   consuming  messages are read; up to `maxInFlight`, or 16 MB, wait for their record to be stored
//   holding    the limit is reached: the parser stands still and TCP holds the broker back
//
// consuming -> holding at the limit; holding -> consuming when one is stored; holding -> away after HOLD_MS, since a
// parser that stands still cannot read the broker's PINGRESP either; away -> connecting when the window has emptied.
import type { IPublishPacket } from 'mqtt'
import type { Logger } from 'pino'
import { Counter, Gauge } from 'prom-client'
import { acknowledge, deferAcknowledgements, type Receive } from './deferred-ack.js'
import { type Broker, createMqttLink } from './mqtt-link.js'

const HOLD_MS = 10_000
const MAX_IN_FLIGHT_BYTES = 16_000_000 // of payloads: a window of large messages must fit into memory
const SESSION_EXPIRY_S = 7 * 86_400

const received = new Counter({ name: 'iot_mqtt_received_messages_total', help: 'data messages received' })
const redelivered = new Counter({
  name: 'iot_mqtt_redelivered_messages_total',
  help: 'messages that came again and were recognised',
})
const ignored = new Counter({
  name: 'iot_mqtt_ignored_messages_total',
  help: 'messages ignored',
  labelNames: ['reason'],
})

/** One received message that waits to be stored. */
type Pending = { packet: IPublishPacket; stored: boolean }

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
  options: { broker: Broker; clientId: string; topic: string; maxInFlight: number; stallMs: number },
  handle: (packet: IPublishPacket, stored: () => void) => void,
  logger: Logger,
): MqttSource {
  let state: 'connecting' | 'consuming' | 'holding' | 'away' = 'connecting'
  let window: Pending[] = [] // of this connection, in order of arrival: PUBACKs go out from its head (MQTT 5, 4.6)
  let acknowledged = 0 // how many of them at its head are: they are cut off together
  let unclaimed = new Map<number, Pending>() // of the connection before, not acknowledged: the broker sends them again
  let inFlight = 0
  let inFlightBytes = 0
  let toAcknowledge = false // soon
  let held: (() => void) | undefined
  let holdTimer: NodeJS.Timeout | undefined
  let stopping = false

  new Gauge({
    name: 'iot_in_flight_messages',
    help: 'data messages received and not stored yet',
    collect() {
      this.set(inFlight)
    },
  })

  /** Once what was stored together is all marked: one write for all of it. */
  const acknowledgeSoon = () => {
    if (toAcknowledge) return
    toAcknowledge = true
    queueMicrotask(acknowledgeStored)
  }
  const acknowledgeStored = () => {
    toAcknowledge = false
    const packetIds: number[] = []
    while (window[acknowledged]?.stored) packetIds.push(window[acknowledged++]?.packet.messageId ?? 0)
    if (packetIds.length > 0 && link.client) acknowledge(link.client, packetIds)
    if (2 * acknowledged < window.length) return
    window = window.slice(acknowledged)
    acknowledged = 0
  }

  const isFull = () => inFlight >= options.maxInFlight || inFlightBytes >= MAX_IN_FLIGHT_BYTES

  const release = () => {
    clearTimeout(holdTimer)
    const readOn = held
    held = undefined
    if (state === 'holding') state = 'consuming'
    readOn?.()
  }

  const onStored = (pending: Pending) => {
    pending.stored = true
    inFlight--
    inFlightBytes -= pending.packet.payload.length
    if (pending.packet.qos > 0) acknowledgeSoon()
    if (stopping || isFull()) return
    if (state === 'holding') release()
    else if (state === 'away' && inFlight === 0) connect()
  }

  const hold = (readOn: () => void) => {
    held = readOn
    state = 'holding'
    holdTimer = setTimeout(() => {
      logger.warn({ inFlight }, 'Kafka does not keep up: leaving the broker, which keeps the backlog')
      state = 'away'
      link.leave()
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

  const receive: Receive = (packet, readOn) => {
    if (stopping) return readOn() // not acknowledged, so the broker keeps it
    if (!packet.dup && packet.qos > 0) unclaimed.clear() // what comes again comes first (MQTT 5, 4.4 and 4.6)
    const known = claim(packet)
    const pending = known ?? { packet, stored: false }
    if (packet.qos > 0) window.push(pending)
    if (known) {
      redelivered.inc()
      acknowledgeSoon()
    } else {
      inFlight++
      inFlightBytes += packet.payload.length
      received.inc()
      if (packet.retain) {
        ignored.inc({ reason: 'retained' })
        onStored(pending)
      } else handle(packet, () => onStored(pending))
    }
    if (isFull()) hold(readOn)
    else readOn()
  }

  const forgetConnection = () => {
    clearTimeout(holdTimer)
    held = undefined
    for (const pending of window.slice(acknowledged)) unclaimed.set(pending.packet.messageId ?? -1, pending)
    window = []
    acknowledged = 0
    if (state !== 'away') state = 'connecting'
  }

  const link = createMqttLink(
    {
      name: 'ingestion',
      broker: options.broker,
      clientId: options.clientId,
      topics: [options.topic],
      stallMs: options.stallMs,
      session: { expirySeconds: SESSION_EXPIRY_S, receiveMaximum: options.maxInFlight },
    },
    {
      attach(client) {
        deferAcknowledgements(client, (packet, readOn) => {
          // what was parsed already when the connection was left comes again
          if (state === 'away' || link.client !== client) return
          if (packet.topic === link.canaryTopic) readOn()
          else receive(packet, readOn)
        })
        client.on('connect', ({ sessionPresent }) => {
          if (!sessionPresent) unclaimed = new Map() // nothing comes again: what is held is stored, not acknowledged
        })
      },
      onSubscribed() {
        if (state === 'connecting') state = 'consuming'
      },
      onLost: forgetConnection,
      isHeld: () => state !== 'consuming',
    },
    logger,
  )

  const connect = () => {
    state = 'connecting'
    link.connect()
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
      await link.stop()
    },
  }
}
