// npm run dlq: shows the dead letters, and puts repaired ones back onto the topic.
//   npm run dlq -- list [--reason not_utf8] [--limit 100]
//   npm run dlq -- replay --offset 12 [--file repaired.json] [--device sensor-1]
//   npm run dlq -- replay --reason redis_rejected
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { ConfigError, loadConfig } from '@iot/shared/config'
import { deadLetterTopic, decodeMessage } from '@iot/shared/contract'
import { createKafka, type KafkaClient, stickyPartitioner } from '@iot/shared/kafka/client'
import type { KafkaMessage } from 'kafkajs'
import { pino } from 'pino'
import { bridgeSchema } from './config.js'
import { ingest } from './ingest.js'
import { parseTopic } from './topics.js'

const USAGE = `usage: npm run dlq -- list [--reason REASON] [--limit 100]
       npm run dlq -- replay --offset OFFSET [--file REPAIRED] [--device DEVICE_ID]
       npm run dlq -- replay --reason REASON`
const PREVIEW_CHARS = 60

class UsageError extends Error {}

/** A dead letter as it stands on its topic, headers as text. */
type Letter = { offset: string; key: string | null; value: Buffer | null; header(name: string): string }

const options = {
  reason: { type: 'string' },
  limit: { type: 'string', default: '100' },
  offset: { type: 'string' },
  file: { type: 'string' },
  device: { type: 'string' },
} as const

async function main() {
  const { values: flags, positionals } = parseArgs({ options, allowPositionals: true })
  const [verb] = positionals
  if (verb !== 'list' && verb !== 'replay') throw new UsageError('say list or replay')
  const config = loadConfig(bridgeSchema, process.env)
  const kafka = createKafka('dlq', config, pino({ level: 'silent' }))
  const isWanted = (letter: Letter) =>
    (flags.reason === undefined || letter.header('reason') === flags.reason) &&
    (flags.offset === undefined || letter.offset === flags.offset)
  const letters = (await readAll(kafka, deadLetterTopic(config.KAFKA_TOPIC))).filter(isWanted)
  if (verb === 'list') {
    const limit = Number(flags.limit)
    if (!Number.isInteger(limit) || limit < 1) throw new UsageError('--limit must be a whole number above 0')
    return show(letters, limit)
  }
  if (flags.offset === undefined && flags.reason === undefined)
    throw new UsageError('replay needs --offset or --reason')
  if ((flags.file ?? flags.device) && flags.offset === undefined) throw new UsageError('a repair needs --offset')
  if (letters.length === 0) throw new Error('no such dead letter')

  const repaired = flags.file === undefined ? undefined : readFileSync(flags.file)
  const producer = kafka.producer({ allowAutoTopicCreation: false, createPartitioner: stickyPartitioner })
  await producer.connect()
  try {
    for (const letter of letters) {
      const message = restore(letter, repaired, flags.device, config)
      const sent = await producer.send({ topic: config.KAFKA_TOPIC, acks: -1, messages: [message] })
      const { partition, baseOffset } = sent[0] ?? {}
      process.stdout.write(`${letter.offset} -> ${config.KAFKA_TOPIC}/${partition}@${baseOffset}\n`)
    }
  } finally {
    await producer.disconnect()
  }
}

/**
 * The record for `iot-data`: the value as it is where it is a whole message, else made of the payload, with the time of
 * the dead letter as its timestamp.
 */
function restore(
  letter: Letter,
  repaired: Buffer | undefined,
  device: string | undefined,
  config: { MQTT_TOPIC_PREFIX: string; MAX_PAYLOAD_BYTES: number },
): { key: string; value: string } {
  const value = repaired ?? letter.value ?? Buffer.alloc(0)
  if (!repaired && letter.header('truncated_from')) {
    throw new Error(`${letter.offset} is only the beginning of ${letter.header('truncated_from')} bytes: give --file`)
  }
  const source = letter.header('source')
  const prefix = config.MQTT_TOPIC_PREFIX
  const key = device ?? letter.key ?? parseTopic(source, prefix)?.deviceId ?? ''
  const message = decodeMessage(Buffer.from(key), value)
  if (message) return { key, value: message.text }
  const result = ingest(key, value, config.MAX_PAYLOAD_BYTES, letter.header('timestamp'))
  if (result.ok && letter.header('reason') !== 'invalid_message') return { key, value: result.value }
  const why = result.ok ? 'is not of the form of iot-data' : result.reason
  throw new Error(`${letter.offset} cannot go back as it is (${why}): give --file or --device`)
}

/** Reads partition 0 of the dead letters' topic, where all of them are, to where it ends now. */
async function readAll(kafka: KafkaClient, topic: string): Promise<Letter[]> {
  const admin = kafka.admin()
  await admin.connect()
  const groupId = `dlq-${randomBytes(6).toString('hex')}`
  const consumer = kafka.consumer({ groupId, maxWaitTimeInMs: 200, allowAutoTopicCreation: false })
  try {
    if (!(await admin.listTopics()).includes(topic)) throw new Error(`there is no topic ${topic}`)
    const [ends] = await admin.fetchTopicOffsets(topic)
    if (!ends || ends.high === ends.low) return []
    await consumer.connect()
    await consumer.subscribe({ topics: [topic], fromBeginning: true })
    const letters: Letter[] = []
    await new Promise<void>((resolve, reject) => {
      consumer.on('consumer.crash', ({ payload }) => reject(payload.error))
      const eachMessage = async ({ message }: { message: KafkaMessage }) => {
        if (BigInt(message.offset) < BigInt(ends.high)) letters.push(asLetter(message))
        if (BigInt(message.offset) >= BigInt(ends.high) - 1n) resolve()
      }
      consumer.run({ autoCommit: false, eachMessage }).catch(reject)
    })
    return letters
  } finally {
    await consumer.disconnect()
    await admin.deleteGroups([groupId]).catch(() => {})
    await admin.disconnect()
  }
}

const asLetter = ({ offset, key, value, headers }: KafkaMessage): Letter => ({
  offset,
  key: key === null ? null : key.toString(),
  value,
  header: (name) => String(headers?.[name] ?? ''),
})

function show(letters: Letter[], limit: number) {
  const shown = letters.slice(-limit)
  const rows = shown.map(({ offset, key, value, header }) => ({
    offset,
    when: new Date(Number(header('timestamp')) * 1000).toISOString(),
    reason: header('reason'),
    source: header('source'),
    device: key ?? '',
    bytes: header('truncated_from') || (value?.length ?? 0),
    preview: JSON.stringify(value?.subarray(0, PREVIEW_CHARS).toString('latin1') ?? ''),
  }))
  if (rows.length > 0) console.table(rows)
  process.stdout.write(
    `${letters.length} dead letters${shown.length < letters.length ? `, the last ${limit} shown` : ''}\n`,
  )
}

try {
  await main()
} catch (error) {
  const { message, code } = error as Error & { code?: string }
  const isOurs = error instanceof UsageError || error instanceof ConfigError || code?.startsWith('ERR_PARSE_ARGS')
  process.stderr.write(`dlq: ${message}\n${isOurs ? `${USAGE}\n` : ''}`)
  process.exitCode = 1
}
