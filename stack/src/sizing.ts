// What a fleet needs: memory of Redis, disk of Kafka, what the MQTT broker must be able to queue, cores. From figures that
// docs/performance.md measured, and from how Redis lays out what it holds. Pure.

export type Fleet = {
  devices: number
  /** Between two readings of a device. */
  intervalSeconds: number
  payloadBytes: number
  idBytes: number
  historySeconds: number
  retentionSeconds: number
  /** Of Kafka. */
  replicas: number
  /** How long the bridge or Kafka may be away while the broker keeps what comes. */
  outageSeconds: number
  /** `zset-max-listpack-entries` and `-value`, `hash-max-listpack-value` of Redis: what is within them is compact. */
  compactEntries: number
  compactMemberBytes: number
  compactStateBytes: number
}

/** Bytes, but for the counts. */
export type Sizing = {
  readingsPerSecond: number
  readingsPerDevice: number
  messageBytes: number
  bytesPerReading: number
  redisData: number
  maxmemory: number
  redisContainer: number
  redisDisk: number
  kafkaDisk: number
  queuedMessages: number
  queuedBytes: number
  cores: number
  consumers: number
  partitions: number
}

const KEY_BYTES = 108 // of a key beside its name: entry, object, bucket, and for histories the expiry
const REDIS_BYTES = 2_000_000 // with nothing in it
const HEADROOM = 1.25 // above the data: buffers, fragmentation, a fleet that is not the one that was planned
const REWRITE = 2 // a rewrite of the append-only file under load may copy all memory
const FILES = 3 // the file grows to twice its base, then a new one is written beside it
const SEGMENTS = 8 // a topic keeps one more than it is told to, of so many
const RECORD_BYTES = 12 // of a Kafka record beside key and value, its share of the batch's head included
// cores of all five together: what they take at 1,000 a second, and for each further reading
const CORES_AT_ALL = 1
const CORE_S_PER_READING = 50e-6
const CONSUMER_S_PER_READING = 11e-6
const CONSUMER_LOAD = 0.6
const PARTITIONS_PER_CONSUMER = 4
const MIN_PARTITIONS = 6

const MESSAGE_FRAME = '{"device_id":"","payload":,"timestamp":1700000000}'.length

/** What jemalloc gives for so many bytes: four sizes between a power of two and the next, of 16 at least. */
export function allocated(bytes: number): number {
  const power = 2 ** Math.floor(Math.log2(Math.max(bytes - 1, 1)))
  const step = Math.max(power / 4, 16)
  return Math.ceil(bytes / step) * step
}

const text = (bytes: number) => allocated(bytes + (bytes < 256 ? 4 : 6)) // with the head of the string

/** A history of so many messages. */
function historyBytes(count: number, message: number, fleet: Fleet): number {
  const key = KEY_BYTES + text('device:history:'.length + fleet.idBytes)
  // a listpack has 12 bytes beside each message: lengths, and the score
  if (count < fleet.compactEntries && message <= fleet.compactMemberBytes)
    return key + allocated(count * (message + 12))
  const node = 54 // of a skiplist, 1.33 levels on average
  const entry = 32
  const buckets = 8 * 2 ** Math.ceil(Math.log2(Math.max(count, 4)))
  return key + 1000 + count * (text(message) + node + entry) + buckets
}

function deviceBytes({ payloadBytes, idBytes, compactStateBytes }: Fleet): number {
  const state = KEY_BYTES - 16 + text('device:last_state:'.length + idBytes)
  const isCompact = payloadBytes <= compactStateBytes
  const hash = isCompact ? allocated(payloadBytes + 40) : text(payloadBytes) + 230
  const guard = 90 + text('guardhgi:device:last_state:'.length + idBytes)
  return state + hash + guard
}

export function size(fleet: Fleet): Sizing {
  const { devices, intervalSeconds, payloadBytes, idBytes } = fleet
  const readingsPerSecond = devices / intervalSeconds
  const readingsPerDevice = Math.floor(fleet.historySeconds / intervalSeconds) + 1
  const message = MESSAGE_FRAME + idBytes + payloadBytes
  const history = historyBytes(readingsPerDevice, message, fleet)
  const redisData = REDIS_BYTES + devices * (history + deviceBytes(fleet))
  const maxmemory = redisData * HEADROOM
  const kept = readingsPerSecond * Math.max(fleet.retentionSeconds, fleet.historySeconds) * (1 + 1 / SEGMENTS)
  const queuedMessages = Math.ceil(readingsPerSecond * fleet.outageSeconds)
  const consumers = Math.ceil((readingsPerSecond * CONSUMER_S_PER_READING) / CONSUMER_LOAD)
  return {
    readingsPerSecond,
    readingsPerDevice,
    messageBytes: message,
    bytesPerReading: history / readingsPerDevice,
    redisData,
    maxmemory,
    redisContainer: maxmemory * REWRITE,
    redisDisk: FILES * devices * (readingsPerDevice * (message + 20) + payloadBytes + 200),
    kafkaDisk: kept * (message + idBytes + RECORD_BYTES) * fleet.replicas,
    queuedMessages,
    queuedBytes: queuedMessages * (payloadBytes + 'devices//data'.length + idBytes),
    cores: CORES_AT_ALL + readingsPerSecond * CORE_S_PER_READING,
    consumers,
    partitions: Math.max(PARTITIONS_PER_CONSUMER * consumers, MIN_PARTITIONS),
  }
}
