// The names of all environment variables of the platform, and what is none although it looks like one: a setting that
// would silently not be used could be a door left open.

/** Of all services, for they are often given one environment; a test holds this against their schemas. */
export const VARIABLES: readonly string[] = `
  API_ALLOWED_HOSTS API_AUTH API_HOST API_KEY API_PORT API_RATE_LIMIT API_READ_KEY API_TRUST_PROXY
  BATCH_INTERVAL_MS BATCH_SIZE BINARY_PAYLOADS BRIDGE_URLS COMMAND_TIMEOUT_MS CONSUMER_URLS DATA_DIR DEVICE_OFFLINE_TIMEOUT
  HEALTH_HOST HEALTH_PORT HISTORY_MAX_BYTES HISTORY_MAX_READINGS HISTORY_RETENTION_SECONDS
  KAFKA_BROKERS KAFKA_CA_FILE KAFKA_CERT_FILE KAFKA_GROUP_ID KAFKA_KEY_FILE KAFKA_PASSWORD KAFKA_REPLICATION_FACTOR
  KAFKA_RETENTION_BYTES KAFKA_RETENTION_HOURS
  KAFKA_SASL_MECHANISM KAFKA_TLS KAFKA_TOPIC KAFKA_TOPIC_PARTITIONS KAFKA_USERNAME
  LAST_STATE_RETENTION_SECONDS LOG_LEVEL MAX_IN_FLIGHT MAX_KNOWN_DEVICES MAX_LISTED_DEVICES MAX_LIVE_STREAMS
  MAX_LIVE_STREAMS_PER_ADDRESS MAX_ONLINE_DEVICES MAX_PAYLOAD_BYTES PRESENCE_FROM PRESENCE_OFFLINE_PAYLOAD
  MQTT_CA_FILE MQTT_CERT_FILE MQTT_CLIENT_ID MQTT_KEY_FILE MQTT_PASSWORD MQTT_STALL_TIMEOUT_MS MQTT_TOPIC_PREFIX MQTT_URL
  MQTT_USERNAME
  READER_HOST READER_NICE READER_PORT READER_URL REDIS_CA_FILE REDIS_DURABILITY REDIS_PASSWORD REDIS_URL REDIS_USERNAME REDIS_WHEN_FULL
  SHUTDOWN_TIMEOUT_MS TIMESTAMP_PRECISION`
  .trim()
  .split(/\s+/)

/** Names that begin so are ours, whatever follows. */
const NAME_SPACE = /^(API|BATCH|HISTORY|KAFKA|MQTT|PRESENCE|READER|REDIS)_/
/** Of `npm start` and the tests, and of Kafka's own scripts. */
const OTHERS =
  /^(KAFKA_PORT|KAFKA_BROKER_COUNT|MQTT_PORT|REDIS_PORT|REDIS_SERVER|REDIS_MAXMEMORY|REDIS_MEMORY_LIMIT|KAFKA_(HOME|OPTS|.*_OPTS))$/
const LONG_NAME = 10 // characters, from which a name that differs by two is no other program's

/** What Kubernetes sets for each of its services, such as REDIS_PORT_6379_TCP_ADDR, or API_PORT=tcp://10.0.0.1:80. */
export const isServiceLink = (name: string, value: string): boolean =>
  /_SERVICE_(HOST|PORT)(_|$)|_PORT_\d+_(TCP|UDP|SCTP)(_|$)/.test(name) ||
  (name.endsWith('_PORT') && /^(tcp|udp|sctp):\/\//.test(value))

/** One line for each variable that looks like one of ours and is none, with the name that was probably meant. */
export function unknownVariables(env: NodeJS.ProcessEnv): string[] {
  return Object.entries(env)
    .filter(([name, value = '']) => !OTHERS.test(name) && !isServiceLink(name, value) && !isKnown(name))
    .filter(([name]) => NAME_SPACE.test(name) || VARIABLES.some((known) => isSlip(name, known)))
    .map(([name]) => `${name}: is no variable of this platform, did you mean ${nearest(name)}?`)
}

const isKnown = (name: string) =>
  VARIABLES.includes(name) || (/(PASSWORD|KEY)_FILE$/.test(name) && VARIABLES.includes(name.replace(/_FILE$/, '')))

/** Whether a name is a long one of ours but for two characters, or but for words at its end. */
function isSlip(name: string, known: string): boolean {
  if (Math.min(name.length, known.length) < LONG_NAME) return false
  if (name.startsWith(`${known}_`) || known.startsWith(`${name}_`)) return true
  return Math.abs(name.length - known.length) <= 2 && distance(name, known) <= 2
}

function nearest(name: string): string {
  const [prefix] = name.split('_')
  const alike = VARIABLES.filter((known) => known.startsWith(`${prefix}_`))
  const [best = ''] = [...(alike.length > 0 ? alike : VARIABLES)].sort((a, b) => distance(name, a) - distance(name, b))
  return best
}

/** Levenshtein's: how many characters are to be changed, put in or left out. */
function distance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index)
  for (let i = 1; i <= from.length; i++) {
    const next = [i]
    for (let j = 1; j <= to.length; j++) {
      const change = (row[j - 1] as number) + (from[i - 1] === to[j - 1] ? 0 : 1)
      next.push(Math.min(change, (row[j] as number) + 1, (next[j - 1] as number) + 1))
    }
    row = next
  }
  return row[to.length] as number
}
