// `npm run size`: what a fleet needs.
//   npm run size -- --devices 10000 --interval 10s --payload 200 [--history 5h --retention 24h --replicas 1 --outage 10m ...]
import { parseArgs } from 'node:util'
import { type Fleet, size } from './sizing.js'

const USAGE = `usage: npm run size -- --devices 10000 --interval 10s --payload 200
  --history 5h        HISTORY_RETENTION_SECONDS
  --retention 24h     KAFKA_RETENTION_HOURS
  --replicas 1        of Kafka
  --outage 10m        for which the broker is to queue
  --id 13             bytes of a device id
  --node-cores 4  --node-memory 16      of a machine, GB
  --listpack 320      zset-max-listpack-entries of Redis; 0 where no message is compact, as Redis has it by itself`
const UNITS: Record<string, number> = { ms: 0.001, s: 1, m: 60, h: 3600, d: 86_400 }
const GB = 1e9

function fail(line: string): never {
  process.stderr.write(`size: ${line}\n${USAGE}\n`)
  process.exit(1)
}

function read() {
  try {
    return parseArgs({
      options: {
        devices: { type: 'string' },
        interval: { type: 'string' },
        payload: { type: 'string' },
        history: { type: 'string', default: '5h' },
        retention: { type: 'string', default: '24h' },
        replicas: { type: 'string', default: '1' },
        outage: { type: 'string', default: '10m' },
        id: { type: 'string', default: '13' },
        listpack: { type: 'string', default: '320' },
        'node-cores': { type: 'string', default: '4' },
        'node-memory': { type: 'string', default: '16' },
      },
    }).values
  } catch (error) {
    return fail((error as Error).message)
  }
}

const flags = read()
const count = (name: keyof typeof flags, least = 1): number => {
  const value = Number(flags[name])
  return Number.isInteger(value) && value >= least ? value : fail(`--${name} must be a whole number`)
}
const seconds = (name: keyof typeof flags): number => {
  const [, amount, unit = ''] = /^([\d.]+)(ms|s|m|h|d)$/.exec(flags[name] ?? '') ?? []
  const value = Number(amount) * (UNITS[unit] ?? Number.NaN)
  return value > 0 ? value : fail(`--${name} must be a time such as 10s, 5m or 2h`)
}

const isCompact = count('listpack', 0) > 0
const fleet: Fleet = {
  devices: count('devices'),
  intervalSeconds: seconds('interval'),
  payloadBytes: count('payload'),
  idBytes: count('id'),
  historySeconds: seconds('history'),
  retentionSeconds: seconds('retention'),
  replicas: count('replicas'),
  outageSeconds: seconds('outage'),
  compactEntries: count('listpack', 0),
  compactMemberBytes: isCompact ? 512 : 64,
  compactStateBytes: isCompact ? 512 : 64,
}
const found = size(fleet)
const gb = (bytes: number) => `${bytes < GB / 10 ? (bytes / GB).toFixed(3) : (bytes / GB).toFixed(1)} GB`
const nodes = Math.ceil(
  Math.max(found.cores / count('node-cores'), found.redisContainer / GB / (count('node-memory') - 3), 1),
)
const platforms = Math.ceil(found.redisContainer / GB / (count('node-memory') - 1))
const rows: [string, string][] = [
  ['readings a second', found.readingsPerSecond.toFixed(1)],
  [
    'readings in a history',
    `${found.readingsPerDevice} of ${Math.round(found.bytesPerReading)} bytes (a message has ${found.messageBytes})`,
  ],
  ['Redis: data', gb(found.redisData)],
  ['Redis: REDIS_MAXMEMORY', `${gb(found.maxmemory)}, its container ${gb(found.redisContainer)}`],
  ['Redis: disk', gb(found.redisDisk)],
  ['Kafka: disk, all replicas', gb(found.kafkaDisk)],
  ['broker: to queue', `${found.queuedMessages} messages, ${gb(found.queuedBytes)}`],
  ['cores, everything together', found.cores.toFixed(1)],
  ['consumers, partitions', `${found.consumers}, ${found.partitions}`],
  ['machines of that size', String(nodes)],
]
for (const [what, value] of rows) process.stdout.write(`${what.padEnd(28)} ${value}\n`)
if (platforms > 1)
  process.stdout.write(
    `No one machine of that size holds this Redis: a larger one, or ${platforms} platforms with a part of the fleet each.\n`,
  )
