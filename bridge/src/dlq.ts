// npm run dlq: shows the dead letters, and puts repaired ones back onto the topic.
//   npm run dlq -- list [--reason not_utf8] [--limit 100]
//   npm run dlq -- replay --offset 12 [--file repaired.json] [--device sensor-1]
//   npm run dlq -- replay --reason redis_rejected [--from 0]
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { ConfigError, loadConfig } from '@iot/shared/config'
import { deadLetterTopic } from '@iot/shared/contract'
import { createKafka, type KafkaClient, stickyPartitioner } from '@iot/shared/kafka/client'
import { pino } from 'pino'
import { bridgeNeeds, bridgeSchema } from './config.js'
import { type Letter, type RestoreOptions, readLetters, restore, rowOf } from './dead-letters.js'

const USAGE = `usage: npm run dlq -- list [--reason REASON] [--limit 100]
       npm run dlq -- replay --offset OFFSET [--file REPAIRED] [--device DEVICE_ID]
       npm run dlq -- replay --reason REASON [--from OFFSET]
A replay by reason goes on where the last one of that reason ended; --from 0 begins again.`
const NAMED_OFFSETS = 20

class UsageError extends Error {}

const say = (line: string) => void process.stdout.write(`${line}\n`)
const complain = (line: string) => void process.stderr.write(`${line}\n`)

const options = {
  reason: { type: 'string' },
  limit: { type: 'string', default: '100' },
  offset: { type: 'string' },
  from: { type: 'string' },
  file: { type: 'string' },
  device: { type: 'string' },
} as const

function wholeNumber(flag: string, text: string, min: number): number {
  if (!/^\d{1,15}$/.test(text) || Number(text) < min)
    throw new UsageError(`--${flag} must be a whole number from ${min}`)
  return Number(text)
}

async function main() {
  const { values: flags, positionals } = parseArgs({ options, allowPositionals: true })
  const [verb, ...more] = positionals
  if (more.length > 0 || (verb !== 'list' && verb !== 'replay')) throw new UsageError('say list or replay')
  const config = loadConfig(bridgeSchema, process.env, bridgeNeeds)
  const kafka = createKafka('dlq', config, pino({ level: 'silent' }))
  const letters = deadLetterTopic(config.KAFKA_TOPIC)
  if (verb === 'list') return list(kafka, letters, flags.reason, wholeNumber('limit', flags.limit, 1))
  const { reason } = flags
  const offset = flags.offset === undefined ? undefined : wholeNumber('offset', flags.offset, 0)
  const from = flags.from === undefined ? undefined : BigInt(wholeNumber('from', flags.from, 0))
  if ((offset === undefined) === (reason === undefined)) throw new UsageError('replay needs --offset or --reason')
  if ((flags.file ?? flags.device) && offset === undefined) throw new UsageError('a repair needs --offset')

  const restoreOptions: RestoreOptions = {
    prefix: config.MQTT_TOPIC_PREFIX,
    maxPayloadBytes: config.MAX_PAYLOAD_BYTES,
    binary: config.BINARY_PAYLOADS,
    repaired: flags.file === undefined ? undefined : readFileSync(flags.file),
    device: flags.device,
  }
  const producer = kafka.producer({ allowAutoTopicCreation: false, createPartitioner: stickyPartitioner })
  await producer.connect()
  const putBack: PutBack = async (letter) => {
    const message = restore(letter, restoreOptions)
    if ('problem' in message) return message.problem
    const sent = await producer.send({ topic: config.KAFKA_TOPIC, acks: -1, messages: [message] })
    const { partition, baseOffset } = sent[0] ?? {}
    say(`${letter.offset} -> ${config.KAFKA_TOPIC}/${partition}@${baseOffset}`)
    return null
  }
  try {
    if (offset !== undefined) await replayOne(kafka, letters, offset, putBack)
    else if (reason !== undefined) await replayReason(kafka, letters, reason, from, putBack)
  } finally {
    await producer.disconnect()
  }
}

/** Sends one letter's record and says so; or returns why that is not possible. @throws when Kafka does not take it */
type PutBack = (letter: Letter) => Promise<string | null>

async function list(kafka: KafkaClient, topic: string, reason: string | undefined, limit: number) {
  const rows: ReturnType<typeof rowOf>[] = []
  let count = 0
  await readLetters(kafka, topic, { from: 0n }, async (letter) => {
    if (reason !== undefined && letter.header('reason') !== reason) return true
    count++
    rows.push(rowOf(letter))
    if (rows.length > limit) rows.shift()
    return true
  })
  if (rows.length > 0) console.table(rows)
  say(`${count} dead letters${rows.length < count ? `, the last ${rows.length} shown` : ''}`)
}

async function replayOne(kafka: KafkaClient, topic: string, offset: number, putBack: PutBack) {
  let problem: string | null = 'no such dead letter'
  await readLetters(kafka, topic, { from: BigInt(offset) }, async (letter) => {
    if (Number(letter.offset) !== offset) return false
    const reason = await putBack(letter)
    problem = reason === null ? null : `${offset} cannot go back as it is (${reason}): give --file or --device`
    return false
  })
  if (problem !== null) throw new Error(problem)
}

/** Puts back what can go, in order, and remembers each: run again, it goes on behind the last one. */
async function replayReason(
  kafka: KafkaClient,
  topic: string,
  reason: string,
  from: bigint | undefined,
  putBack: PutBack,
) {
  const stuck: string[] = []
  let count = 0
  const start = await readLetters(kafka, topic, { resume: `replay.${reason}`, from }, async (letter, commit) => {
    if (letter.header('reason') !== reason) return true
    const problem = await putBack(letter)
    if (problem === null) count++
    else {
      complain(`${letter.offset} cannot go back as it is (${problem})`)
      stuck.push(letter.offset)
    }
    await commit()
    return true
  })
  if (stuck.length > 0) {
    const named = stuck.slice(0, NAMED_OFFSETS).join(', ')
    throw new Error(
      `${stuck.length} cannot go back as they are: ${named}: replay each by --offset with --file or --device`,
    )
  }
  if (count > 0) return
  if (start === 0n) throw new Error('no such dead letter')
  say(`none of this reason from offset ${start}; those before went back (--from 0 sends them again)`)
}

try {
  await main()
} catch (error) {
  const { message, code } = error as Error & { code?: string }
  const isOurs = error instanceof UsageError || error instanceof ConfigError || code?.startsWith('ERR_PARSE_ARGS')
  complain(`dlq: ${message}${isOurs ? `\n${USAGE}` : ''}`)
  process.exitCode = 1
}
