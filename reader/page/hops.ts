// The way of the data as people see it: from `GET /flow`, which says null for what is not known, to five hops with their
// words, and rings of five minutes behind them. Pure.
import { age as ageText, count, rate } from './text'

type Known = number | null
type Server = { ready: boolean; problem: string | null }
type Service = { url: string; ready: boolean | null; not_ready: Record<string, string> }

/** Where devices publish, as the bridge sees it. */
export type Broker = { url: string; topic_prefix: string }

/** What `GET /flow` answers. */
export type Flow = {
  bridges: (Service & {
    received_per_second: Known
    published_per_second: Known
    in_flight: Known
    online: Known
    mqtt: Broker | null
  })[]
  kafka: Server & { records_per_second: Known; lag: Known; partitions: { partition: number; lag: Known }[] | null }
  consumers: (Service & { stored_per_second: Known; newest_stored_age_seconds: Known })[]
  redis: Server
  dead_letters: { last_5_minutes: Known }
}

export type Ring = readonly Known[]
export type FlowState = {
  flow: Flow | null
  rings: Readonly<Record<'received' | 'inFlight' | 'lag' | 'stored' | 'age', Ring>>
}
/** `why` is what keeps it from being ready; `value` and `label` are its first figure; `arriving` is a rate; `lanes` is the lag of each partition. */
export type Hop = {
  name: string
  state: 'ready' | 'waiting' | 'away' | 'unknown'
  why: string
  value: string
  label: string
  arriving: Known
  ring: Ring
  lanes: Known[]
}

const RING = 300 // one a second
const NOTHING: Ring = []
export const noFlow: FlowState = {
  flow: null,
  rings: { received: NOTHING, inFlight: NOTHING, lag: NOTHING, stored: NOTHING, age: NOTHING },
}

/**
 * A line that publishes a first reading. @param hostname of the page: the bridge may know its broker by a name that only
 * the two of them have, and then it stands where the page comes from
 */
export function firstReading({ url, topic_prefix }: Broker, hostname: string): string {
  const { protocol, hostname: name, port } = new URL(url)
  const isOwn = !name.includes('.') || name.startsWith('127.')
  const isSecure = ['mqtts:', 'ssl:', 'wss:'].includes(protocol)
  // mosquitto_pub speaks no WebSocket: then the usual port is worth a try
  const at = protocol.startsWith('ws') || port === '' ? '' : ` -p ${port}`
  const tls = isSecure ? `${at === '' ? ' -p 8883' : ''} --tls-use-os-certs` : ''
  return `mosquitto_pub -h ${isOwn ? hostname : name}${at}${tls} -q 1 -t '${topic_prefix}/my-sensor/data' -m '{"temperature":21.50}'`
}

/** Null where one of them is not known, for a part would look like the whole. */
const sumOf = (values: Known[]): Known =>
  values.length === 0 || values.includes(null) ? null : values.reduce<number>((sum, value) => sum + (value ?? 0), 0)
const mostOf = (values: Known[]): Known =>
  values.length === 0 || values.includes(null) ? null : Math.max(...(values as number[]))

/** The sums over all that do the same. */
export function figuresOf(flow: Flow | null) {
  const { bridges = [], consumers = [], kafka, dead_letters } = flow ?? {}
  return {
    received: sumOf(bridges.map((one) => one.received_per_second)),
    published: sumOf(bridges.map((one) => one.published_per_second)),
    inFlight: sumOf(bridges.map((one) => one.in_flight)),
    records: kafka?.records_per_second ?? null,
    lag: kafka?.lag ?? null,
    stored: sumOf(consumers.map((one) => one.stored_per_second)),
    age: mostOf(consumers.map((one) => one.newest_stored_age_seconds)),
    deadLetters: dead_letters?.last_5_minutes ?? null,
  }
}

export function afterFlow({ rings }: FlowState, flow: Flow): FlowState {
  const { received, inFlight, lag, stored, age } = figuresOf(flow)
  const put = (ring: Ring, value: Known) => [...ring, value].slice(-RING)
  return {
    flow,
    rings: {
      received: put(rings.received, received),
      inFlight: put(rings.inFlight, inFlight),
      lag: put(rings.lag, lag),
      stored: put(rings.stored, stored),
      age: put(rings.age, age),
    },
  }
}

type Standing = Pick<Hop, 'state' | 'why'>
const READY: Standing = { state: 'ready', why: '' }
const UNKNOWN: Standing = { state: 'unknown', why: '' }

/** How services stand together: the worst of them has the word. */
function standingOf(services: Service[]): Standing {
  if (services.length === 0) return UNKNOWN
  const away = services.filter(({ ready }) => ready === null)
  if (away.length > 0)
    return { state: 'away', why: services.length === 1 ? '' : `${away.length} of ${services.length} do not answer` }
  const [waiting] = services.filter(({ ready }) => !ready)
  if (!waiting) return READY
  const [[part, why] = ['', '']] = Object.entries(waiting.not_ready)
  return { state: 'waiting', why: `${part}: ${why}` }
}

const standingOfServer = ({ ready, problem }: Server): Standing =>
  ready ? READY : { state: 'away', why: problem ?? '' }

/** The broker, as the bridges see it. */
function standingOfMqtt(bridges: Service[]): Standing {
  const seen = bridges.filter(({ ready }) => ready !== null)
  if (seen.length === 0) return UNKNOWN
  const problem = seen.flatMap(({ not_ready }) => not_ready.ingestion ?? not_ready.control ?? []).at(0)
  return problem === undefined ? READY : { state: 'away', why: problem }
}

export function hopsOf({ flow, rings }: FlowState): Hop[] {
  const { received, published, inFlight, records, lag, stored, age } = figuresOf(flow)
  const { bridges = [], consumers = [], kafka, redis } = flow ?? {}
  const hop = (name: string, standing: Standing, value: string, label: string, arriving: Known, ring: Ring): Hop => ({
    ...standing,
    name,
    value,
    label,
    arriving,
    ring,
    lanes: [],
  })
  return [
    hop('MQTT', standingOfMqtt(bridges), rate(received), 'messages/s', null, rings.received),
    hop('Bridge', standingOf(bridges), count(inFlight), 'in flight', received, rings.inFlight),
    {
      ...hop(
        'Kafka',
        kafka ? standingOfServer(kafka) : UNKNOWN,
        count(lag),
        'waiting',
        published ?? records,
        rings.lag,
      ),
      lanes: kafka?.partitions?.map((one) => one.lag) ?? [],
    },
    hop('Consumer', standingOf(consumers), rate(stored), 'stored/s', stored, rings.stored),
    hop(
      'Redis',
      redis ? standingOfServer(redis) : UNKNOWN,
      age === null ? '–' : ageText(age),
      'newest stored',
      stored,
      rings.age,
    ),
  ]
}
