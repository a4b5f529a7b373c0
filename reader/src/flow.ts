// How readings flow at this moment: rates, what waits, who is ready, from the services' own metrics and from Kafka. Looked
// at once a second while somebody wants to know. What is not known is null, and named.
import { pause } from '@iot/shared/backoff'
import { describe } from '@iot/shared/errors'
import { lagsOf } from '@iot/shared/kafka/topic-state'
import { withDeadline } from '@iot/shared/lifecycle'
import { createSignal } from '@iot/shared/signal'
import type { DeadLetters } from './dead-letters.js'
import type { Located } from './live/tail.js'
import { createRate, type Rate } from './rate.js'
import { ask, textOf } from './services.js'
import type { Stored } from './stored.js'

const PERIOD_MS = 1000
const ANSWER_MS = 900
const LINGER_MS = 15_000 // after the last question
const LETTERS_MS = 300_000

export type Flow = {
  /** As JSON; takes a second where nobody has asked lately, for rates need two looks. */
  now(): Promise<string>
  /** The newest one, for somebody who asks all the time; null before the first. */
  current(): string | null
  start(): void
  stop(): void
}

export type FlowParts = {
  bridges: readonly string[]
  consumers: readonly string[]
  /** That the services are shown, so that they say why they are not ready. */
  key: string | undefined
  locate: () => Promise<Located>
  stored: Pick<Stored, 'of'>
  letters: Pick<DeadLetters, 'countSince'>
  /** What is wrong with servers, as this service sees it. */
  checks: { kafka: () => string | null; redis: () => string | null }
}

type Look = {
  ready: boolean | null
  not_ready: Record<string, string>
  metrics: string | null
  problem: string | null
}

/** A metric over all its labels; null where there is none. */
export function metricIn(text: string | null, name: string): number | null {
  const values = [...(text ?? '').matchAll(new RegExp(`^${name}(?:\\{.*\\})? (\\S+)$`, 'gm'))].map(([, one]) =>
    Number(one),
  )
  return values.length === 0 ? null : values.reduce((sum, one) => sum + one, 0)
}

/** Where devices publish, as a bridge's metrics say; null where they do not. */
export function brokerIn(text: string | null): { url: string; topic_prefix: string } | null {
  const [, labels = ''] = /^iot_mqtt_info\{(.*)\} 1$/m.exec(text ?? '') ?? []
  const label = (name: string) => new RegExp(`(?:^|,)${name}="((?:[^"\\\\]|\\\\.)*)"`).exec(labels)?.[1]
  const [url, prefix] = [label('url'), label('topic_prefix')]
  if (url === undefined || prefix === undefined) return null
  const plain = (escaped: string) => escaped.replaceAll(/\\(.)/g, (_, char) => (char === 'n' ? '\n' : char))
  return { url: plain(url), topic_prefix: plain(prefix) }
}

// longer than other functions: it puts one answer together
export function createFlow(parts: FlowParts): Flow {
  const { bridges, consumers, key, locate, stored, letters, checks } = parts
  const headers = key === undefined ? {} : { authorization: `Bearer ${key}` }
  const asked = createSignal()
  const looked = createSignal()
  const rates = new Map<string, Rate>()
  let newest: string | null = null
  let looks = 0 // since somebody began to ask
  let askedMs = Number.NEGATIVE_INFINITY
  let isStopped = false

  const rate = (name: string, value: number | null): number | null => {
    const found = rates.get(name) ?? createRate()
    rates.set(name, found)
    return found.add(performance.now(), value)
  }

  const lookAt = async (url: string): Promise<Look> => {
    const get = async (path: string) => {
      const response = await ask(url, { path, headers, timeoutMs: ANSWER_MS })
      return { status: response.statusCode, text: await textOf(response) }
    }
    try {
      const [ready, metrics] = await withDeadline(Promise.all([get('/health/ready'), get('/metrics')]), ANSWER_MS)
      const { not_ready = {} } =
        ready.status === 200 ? {} : (JSON.parse(ready.text) as { not_ready?: Look['not_ready'] })
      return { ready: ready.status === 200, not_ready, metrics: metrics.text, problem: null }
    } catch (error) {
      return { ready: null, not_ready: {}, metrics: null, problem: `${url}: ${describe(error)}` }
    }
  }

  const lookAtKafka = async () => {
    const { topic, bounds } = await locate()
    const reached = await stored.of([...bounds.keys()])
    const lags = lagsOf(bounds, reached, topic.id)
    const partitions = topic.partitions.map(({ partition, leader }) => ({
      partition,
      leader,
      end: bounds.get(partition)?.high ?? null,
      lag: lags.get(partition) ?? null,
    }))
    const isWhole = partitions.every(({ lag }) => lag !== null)
    const sum = (name: 'end' | 'lag') => (isWhole ? partitions.reduce((all, one) => all + (one[name] ?? 0), 0) : null)
    return { partitions, end: sum('end'), lag: sum('lag') }
  }

  const look = async () => {
    const kafkaLook = withDeadline(lookAtKafka(), ANSWER_MS)
    const lettersLook = withDeadline(letters.countSince(Date.now() - LETTERS_MS), ANSWER_MS)
    const [bridgeLooks, consumerLooks, [kafka, recent]] = await Promise.all([
      Promise.all(bridges.map(lookAt)),
      Promise.all(consumers.map(lookAt)),
      Promise.allSettled([kafkaLook, lettersLook] as const),
    ])
    const known = kafka.status === 'fulfilled' ? kafka.value : { partitions: null, end: null, lag: null }
    const all = [...bridgeLooks, ...consumerLooks]
    const unknown = all.flatMap(({ problem }) => (problem === null ? [] : [problem]))
    if (kafka.status === 'rejected') unknown.push(`Kafka: ${describe(kafka.reason)}`)
    if (recent.status === 'rejected') unknown.push(`dead letters: ${describe(recent.reason)}`)
    const service = (url: string, { ready, not_ready }: Look) => ({ url, ready, not_ready })
    newest = JSON.stringify({
      timestamp: Math.floor(Date.now() / 1000),
      bridges: bridgeLooks.map((one, index) => ({
        ...service(bridges[index] as string, one),
        received_per_second: rate(`received ${index}`, metricIn(one.metrics, 'iot_mqtt_received_messages_total')),
        published_per_second: rate(`published ${index}`, metricIn(one.metrics, 'iot_kafka_published_records_total')),
        in_flight: metricIn(one.metrics, 'iot_in_flight_messages'),
        online: metricIn(one.metrics, 'iot_online_devices'),
        mqtt: brokerIn(one.metrics),
      })),
      kafka: {
        ready: checks.kafka() === null,
        problem: checks.kafka(),
        records_per_second: rate('records', known.end),
        lag: known.lag,
        partitions: known.partitions,
      },
      consumers: consumerLooks.map((one, index) => ({
        ...service(consumers[index] as string, one),
        stored_per_second: rate(`stored ${index}`, metricIn(one.metrics, 'iot_stored_messages_total')),
        newest_stored_age_seconds: metricIn(one.metrics, 'iot_newest_stored_age_seconds'),
      })),
      redis: { ready: checks.redis() === null, problem: checks.redis() },
      dead_letters: { last_5_minutes: recent.status === 'fulfilled' ? recent.value : null },
      unknown,
    })
    looks++
    looked.wake()
  }

  const run = async () => {
    while (!isStopped) {
      if (performance.now() - askedMs > LINGER_MS) {
        newest = null
        looks = 0
        rates.clear()
        await asked.wait()
        continue
      }
      const startedMs = performance.now()
      await look()
      await pause(Math.max(startedMs + PERIOD_MS - performance.now(), 0))
    }
  }

  const touch = () => {
    askedMs = performance.now()
    asked.wake()
  }

  return {
    async now() {
      touch()
      while (looks < 2 && !isStopped) await looked.wait()
      return newest ?? 'null'
    },
    current() {
      touch()
      return newest
    },
    start: () => void run(),
    stop() {
      isStopped = true
      asked.wake()
      looked.wake()
    },
  }
}
