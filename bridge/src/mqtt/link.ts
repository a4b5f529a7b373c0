// A connection to the broker with its subscriptions, kept up: MQTT 5, or 3.1.1 where the broker refuses 5. A client of
// MQTT.js lives for one connection, so that nothing of one can go out on the next. Whatever keeps the connection from
// doing its work is a condition: seen by `check`, in the log once, and counted.
import { createCondition } from '@iot/shared/condition'
import { describe } from '@iot/shared/errors'
import type { ISubscriptionMap, MqttClient } from 'mqtt'
import type { Logger } from 'pino'
import { Counter } from 'prom-client'
import { type ClientOptions, dropClient, openClient } from './client.js'
import { takeOverQos2 } from './manual-ack.js'
import { createPulse, LOOK_MS, type PulseProblem } from './pulse.js'
import { createReconnects } from './reconnects.js'

export { type IDisconnectPacket, type MqttClient, ReasonCodes } from 'mqtt'
export type { Broker } from './client.js'

const SUBSCRIBE_LOOKS = 20 // 10 s
const RESUBSCRIBE_LOOKS = 10 // 5 s
const STOP_MS = 2000
const UNACCEPTABLE_PROTOCOL = [1, 0x84] // in a CONNACK of 3.1.1, and of 5
const REFUSED = 0x80 // and above, in a SUBACK
const DEFAULT_KEPT_BYTES = 256 * 1024
const CANARY = 'canary'

const SUBSCRIBED_AT_QOS_0 =
  'the broker granted the subscription at QoS 0: what it delivers is lost when the bridge or the connection stops'
const PROBLEMS: Record<PulseProblem, string> = {
  silent: 'the broker is silent: no answer to pings for 10 s',
  mute: 'connected, but nothing arrives: the broker answers pings and delivers nothing',
}

const connects = new Counter({
  name: 'iot_mqtt_connects_total',
  help: 'connections made to the broker',
  labelNames: ['connection'],
})
const stalls = new Counter({
  name: 'iot_mqtt_stalls_total',
  help: 'connections given up because the broker was silent, or delivered nothing, not even the canary',
  labelNames: ['connection'],
})
const takeovers = new Counter({
  name: 'iot_mqtt_takeovers_total',
  help: 'connections ended by the broker because another client uses the client id, or as if it did',
  labelNames: ['connection'],
})

/** With a session, its subscriptions are to be granted at QoS 1. */
export type LinkOptions = Pick<ClientOptions, 'broker' | 'clientId' | 'session'> & {
  /** Names the connection in logs, metrics and /health/ready. */
  name: string
  topics: string[]
  /** A topic that nobody else uses, on which the connection proves that messages arrive. */
  canaryTopic: string
  /** How long nothing may arrive, the canary included, before the connection is given up; 0: for ever, no canary. */
  stallMs: number
  /** A payload is cut to this size before it is buffered. */
  keptBytes?: number
}

export type LinkEvents = {
  /** Adds the listeners to a client that was just created. */
  attach(client: MqttClient): void
  /** The broker has granted the subscriptions: messages flow. */
  onSubscribed(): void
  /** The connection is gone, by itself or given up. */
  onLost(): void
  /** Whether messages are kept back by our own will, so that silence means nothing. */
  isHeld?(): boolean
}

export type MqttLink = {
  /** The current client; another one for every connection, undefined between two. */
  readonly client: MqttClient | undefined
  readonly protocolVersion: 4 | 5
  /** Messages on this topic are the connection's own. */
  readonly canaryTopic: string
  /** What keeps it from delivering messages, in words; null while it does. */
  check(): string | null
  connect(): void
  /** Drops the connection at once, and stays away until `connect()`. */
  leave(): void
  /** Sends what is queued, then disconnects. */
  stop(): Promise<void>
}

export function createMqttLink(options: LinkOptions, events: LinkEvents, logger: Logger): MqttLink {
  const { name, canaryTopic, session } = options
  const log = logger.child({ connection: name })
  const condition = createCondition(
    name,
    { wrong: 'MQTT connection does not work; retrying', right: 'MQTT connection works again' },
    log,
  )
  for (const counter of [stalls, takeovers]) counter.inc({ connection: name }, 0) // so that the first is an increase
  const pulse = createPulse(options.stallMs)
  const reconnects = createReconnects()
  let client: MqttClient | undefined
  let protocolVersion: 4 | 5 = 5
  let isSubscribed = false
  let hasSubscribed = false // on any connection
  let isSuspect = false // of being taken over: works, but may not for long
  let unsubscribedLooks = 0 // since anything was delivered: a backlog may come before the SUBACK
  let received = 0 // messages on this connection
  let looker: NodeJS.Timeout | undefined
  let retry: NodeJS.Timeout | undefined

  const subscribe = (current: MqttClient) => {
    // rh 1: retained messages only with a new subscription; `resubscribe` makes MQTT.js send what it has sent before
    const extra = protocolVersion === 5 ? { rh: 1 } : {}
    const wanted = Object.fromEntries(options.topics.map((topic) => [topic, { qos: 1, ...extra }]))
    current.subscribe({ ...wanted, resubscribe: true } as ISubscriptionMap, (err, granted = []) => {
      if (client !== current || !current.connected) return
      const refused = granted.find(({ qos }) => qos >= REFUSED)
      if (err || refused) {
        condition.wrong(`subscription refused: ${err ? describe(err) : refused?.qos}`, { topics: options.topics })
        return
      }
      const isWeak = session !== undefined && granted.some(({ qos }) => (qos as number) === 0)
      onSubscribed(isWeak)
      if (pulse.isCanaryOn) subscribeCanary(current, extra)
    })
  }

  // by itself, since MQTT.js takes one refused topic for the failure of all
  const subscribeCanary = (current: MqttClient, extra: object) =>
    current.subscribe({ [canaryTopic]: { qos: 0, ...extra } } as ISubscriptionMap, (err) => {
      if (client !== current || !current.connected) return
      if (err) pulse.canaryRefused()
      else pulse.canarySubscribed()
    })

  const onSubscribed = (isWeak: boolean) => {
    isSubscribed = true
    hasSubscribed = true
    if (isWeak) condition.wrong(SUBSCRIBED_AT_QOS_0)
    else if (!isSuspect) {
      if (condition.check() === null) log.info({ topics: options.topics, protocolVersion }, 'broker connected')
      condition.right()
    }
    events.onSubscribed()
  }

  const look = () => {
    const because = pulse.takeCanaryOff()
    if (because) log.info({ because }, 'canary switched off: only silence shows that nothing arrives')
    const current = client
    if (!current?.connected) return
    const isHeld = events.isHeld?.() ?? false
    const { ping, canary, problem } = pulse.look(isHeld)
    if (ping) current.sendPing()
    if (canary) current.publish(canaryTopic, CANARY, { qos: 0 }, () => {})
    if (problem) {
      stalls.inc({ connection: name })
      giveUp(current, PROBLEMS[problem])
    } else if (!isSubscribed && !isHeld) {
      unsubscribedLooks++
      if (unsubscribedLooks === SUBSCRIBE_LOOKS) giveUp(current, condition.check() ?? 'subscription not acknowledged')
      else if (unsubscribedLooks % RESUBSCRIBE_LOOKS === 0) subscribe(current)
    } else if (isSuspect && reconnects.isStable()) {
      isSuspect = false
      condition.right()
    }
  }

  /** Ends a connection that is of no use, and makes another one. */
  const giveUp = (current: MqttClient, problem: string) => {
    condition.wrong(problem)
    retire(current)
    retry = setTimeout(open, reconnects.gaveUp())
  }

  /** Forgets a client: what it still hands out is not listened to. */
  const retire = (current: MqttClient) => {
    client = undefined
    dropClient(current)
    pulse.ended(false)
    lost()
  }

  const lost = () => {
    isSubscribed = false
    unsubscribedLooks = 0
    events.onLost()
  }

  /** The connection, or the try to make one, was ended by the other side. */
  const onEnded = (error: Error | undefined, reasonCode: number | undefined) => {
    client = undefined
    pulse.ended(true)
    const wasSubscribed = isSubscribed
    const { pauseMs, takeover } = reconnects.ended(reasonCode, received)
    isSuspect = takeover !== null && hasSubscribed
    lost()
    const code = Number((error as { code?: number | string } | undefined)?.code)
    if (protocolVersion === 5 && UNACCEPTABLE_PROTOCOL.includes(code)) {
      log.info('the broker refuses MQTT 5: using 3.1.1')
      protocolVersion = 4
      retry = setTimeout(open, 0)
      return
    }
    if (isSuspect) takeovers.inc({ connection: name })
    const reason = reasonCode === undefined ? '' : ` with reason 0x${reasonCode.toString(16)}`
    const what = wasSubscribed ? 'connection lost' : 'connection ended before it was subscribed'
    condition.wrong((isSuspect && takeover) || (error ? describe(error) : `${what}${reason}`))
    retry = setTimeout(open, pauseMs)
  }

  const open = () => {
    const { broker, clientId, keptBytes = DEFAULT_KEPT_BYTES } = options
    const current = openClient(
      { broker, clientId, protocolVersion, keptBytes, session },
      {
        onBytes: pulse.onBytes,
        onPublish(packet) {
          received++
          unsubscribedLooks = 0
          pulse.onMessage(packet.topic === canaryTopic)
          if (packet.qos === 2 && session) takeOverQos2(packet)
        },
        onConnect() {
          connects.inc({ connection: name })
          reconnects.connected()
          subscribe(current)
        },
        onEnd: (problem, reasonCode) => client === current && onEnded(problem, reasonCode),
      },
    )
    client = current
    received = 0
    events.attach(current)
  }

  return {
    get client() {
      return client
    },
    get protocolVersion() {
      return protocolVersion
    },
    canaryTopic,
    check: () => condition.check() ?? (isSubscribed ? null : 'connecting'),
    connect() {
      looker ??= setInterval(look, LOOK_MS)
      open()
    },
    leave() {
      clearTimeout(retry)
      if (client) retire(client)
    },
    async stop() {
      clearInterval(looker)
      clearTimeout(retry)
      const last = client
      if (!last) return
      client = undefined // its end is no loss
      const frozen = setTimeout(() => last.stream.destroy(), STOP_MS)
      await last.endAsync(!last.connected)
      clearTimeout(frozen)
    },
  }
}
