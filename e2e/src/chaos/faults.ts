// What is done to a process: killed, frozen or stopped, and brought back.
import type { Cluster } from '@iot/stack/cluster'
import type { Platform } from '../platform.js'
import type { Span } from './check.js'
import { inSync } from './replicas.js'

export const COMPONENTS = ['bridge', 'consumer', 'kafka', 'redis', 'mosquitto'] as const
export const KINDS = ['SIGKILL', 'SIGSTOP', 'SIGTERM'] as const
/** `broker-1` and so on are single brokers of a cluster. */
export type Component = (typeof COMPONENTS)[number] | `broker-${number}`
export type Kind = (typeof KINDS)[number]
export type Fault = { component: Component; kind: Kind }

const DOWN_MS = 3000
/** What Mosquitto had not written to its file when it was killed; it writes every 5 s. */
const BROKER_UNSAVED_MS = 10_000

export const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

/** What can be struck: of a cluster each broker, else Kafka as a whole. */
export const componentsOf = ({ brokers }: Cluster): Component[] =>
  brokers.length === 1
    ? [...COMPONENTS]
    : [...COMPONENTS.filter((name) => name !== 'kafka'), ...brokers.map((_, index) => `broker-${index + 1}` as const)]

type Target = {
  signal(signal: NodeJS.Signals): unknown
  /** SIGTERM, or waits for the end; returns the exit code where it is known. */
  stop(): Promise<unknown>
  start(): Promise<void>
}

function targetOf(platform: Platform, cluster: Cluster, component: Component): Target {
  if (component === 'bridge' || component === 'consumer') return platform[component]
  if (component === 'kafka' || component === 'redis' || component === 'mosquitto') return cluster[component]
  const broker = cluster.brokers[Number(component.slice('broker-'.length)) - 1]
  if (!broker) throw new Error(`there is no ${component}`)
  return broker
}

/**
 * Does harm and repairs it; resolves when what was repaired answers, and a cluster's replicas are in sync again.
 * @returns a span where a killed broker may have lost what it had acknowledged
 */
export async function strike(
  platform: Platform,
  cluster: Cluster,
  { component, kind }: Fault,
  { frozenMs = 0, downMs = DOWN_MS } = {},
): Promise<Span[]> {
  const fromMs = Date.now() - BROKER_UNSAVED_MS
  const target = targetOf(platform, cluster, component)
  if (kind === 'SIGSTOP') {
    await target.signal('SIGSTOP')
    await pause(frozenMs)
    await target.signal('SIGCONT')
  } else {
    if (kind === 'SIGKILL') await target.signal('SIGKILL')
    const code = await target.stop()
    if (kind === 'SIGTERM' && typeof code === 'number' && code !== 0) {
      throw new Error(`${component} ended with ${code} after SIGTERM`)
    }
    await pause(downMs)
    await target.start()
  }
  if (component.startsWith('broker-')) await inSync(platform)
  return component === 'mosquitto' && kind === 'SIGKILL' ? [{ fromMs, toMs: Date.now() }] : []
}
