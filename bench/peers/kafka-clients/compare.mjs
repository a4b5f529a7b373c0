// What another Kafka client costs beside the room for kafkajs (shared/src/kafka/README.md has the figures): CPU seconds
// per million records, written with acks=all and one request outstanding, and read from the beginning.
//   npm run build && npm install --no-save --prefix .local/peers/kafka-clients @platformatic/kafka@2.12.1
//   node bench/peers/kafka-clients/compare.mjs          Node 22.22 or 24.6, which that client needs
import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { createRig } from '../../dist/rig.js'

const ROUNDS = 3
const RECORDS = 300_000
const WARM_UP = 60_000
const BATCH = 1000
const PARTITIONS = 6

const [which, broker, topic] = process.argv.slice(2)
const CLIENTS = { ours, platformatic }
if (which === undefined) await compare()
else await run(await CLIENTS[which](broker, topic))

async function compare() {
  const rig = await createRig()
  try {
    for (let round = 0; round < ROUNDS; round++) {
      for (const client of Object.keys(CLIENTS)) {
        const created = await rig.createTopic()
        const args = ['--max-semi-space-size=64', fileURLToPath(import.meta.url), client, rig.broker, created]
        const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' })
        process.stdout.write(stdout || stderr)
        await rig.deleteTopic(created)
      }
    }
  } finally {
    await rig.stop()
  }
  process.exit(0)
}

async function run({ write, readAll }) {
  const payload = { temperature: 21.53, humidity: 47.11, battery: 3.71, seq: 123456 }
  const value = JSON.stringify({ device_id: 'sensor-12345', payload, timestamp: 1795487038 })
  const writeMany = async (count) => {
    for (let at = 0; at < count; at += BATCH)
      await write(Array.from({ length: BATCH }, (_, index) => ({ key: `sensor-${index}`, value })))
  }
  await writeMany(WARM_UP)
  const writing = await cpuPerMillion(RECORDS, () => writeMany(RECORDS))
  const reading = await cpuPerMillion(WARM_UP + RECORDS, () => readAll(WARM_UP + RECORDS))
  const mb = Math.round(process.memoryUsage().rss / 1e6)
  process.stdout.write(`${which.padEnd(13)} writing ${writing} s/M  reading ${reading} s/M  ${mb} MB\n`)
  process.exit(0)
}

async function cpuPerMillion(count, work) {
  const before = process.cpuUsage()
  await work()
  const { user, system } = process.cpuUsage(before)
  return ((user + system) / count).toFixed(2)
}

async function ours(at, name) {
  const { kafkaOptions } = await import('@iot/shared/kafka/client')
  const { createConnections } = await import('@iot/shared/kafka/connections')
  const { createProducer } = await import('@iot/shared/kafka/producer')
  const { fetchRecords } = await import('@iot/shared/kafka/fetch')
  const { partitionOf } = await import('@iot/shared/kafka/partitioner')
  const logger = { debug() {}, info() {}, warn() {}, error: console.error, child: () => logger }
  const connections = createConnections(kafkaOptions('compare', { KAFKA_BROKERS: [at], KAFKA_TLS: false }, logger))
  const { topics } = await connections.metadata([name])
  const leader = topics.get(name)[0].leader
  const producer = createProducer(connections)
  const tryToWrite = async (records) => {
    const batches = Array.from({ length: PARTITIONS }, (_, partition) => ({ topic: name, partition, records: [] }))
    for (const record of records) batches[partitionOf(Buffer.from(record.key), PARTITIONS)].records.push(record)
    const results = await producer.send(
      leader,
      batches.filter((batch) => batch.records.length > 0),
    )
    return results.find((result) => result !== null)
  }
  return {
    async write(records) {
      for (let error = await tryToWrite(records); error; error = await tryToWrite(records)) {
        if (error.type !== 'GROUP_LOAD_IN_PROGRESS') throw error
        await setTimeout(200) // the server has only just started
      }
    },
    async readAll(count) {
      const offsets = Array.from({ length: PARTITIONS }, () => 0)
      for (let read = 0; read < count; ) {
        const partitions = offsets.map((offset, partition) => ({ partition, offset }))
        const answer = await fetchRecords(connections, leader, {
          topic: name,
          partitions,
          maxWaitMs: 500,
          maxBytes: 262_144,
        })
        for (const { partition, records, next } of answer.partitions) {
          read += records.length
          offsets[partition] = next ?? offsets[partition]
        }
      }
    },
  }
}

async function platformatic(at, name) {
  const folder = new URL('../../../.local/peers/kafka-clients/', import.meta.url)
  const { Consumer, Producer, stringSerializers } = await import(
    createRequire(folder).resolve('@platformatic/kafka').replace(/^/, 'file://')
  )
  const options = { clientId: 'compare', bootstrapBrokers: [at] }
  const producer = new Producer({ ...options, serializers: stringSerializers, idempotent: true, acks: -1 })
  return {
    write: (records) => producer.send({ messages: records.map((record) => ({ topic: name, ...record })), acks: -1 }),
    async readAll(count) {
      const consumer = new Consumer({ ...options, groupId: name, maxWaitTime: 500 })
      const stream = await consumer.consume({ topics: [name], mode: 'earliest', autocommit: false })
      let read = 0
      for await (const _ of stream) if (++read === count) break
    },
  }
}
