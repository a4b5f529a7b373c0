// One library by itself, as a process to be measured:
//   node limit.js mqtt     MQTT.js takes the backlog of a persistent session and does nothing with it
//   node limit.js kafka    kafkajs as it is published produces the same bytes, 1,000 records a send, acks=all
import { argv, env } from 'node:process'
import kafkajs from 'kafkajs'
import mqtt from 'mqtt'
import { record } from './load.js'

const RECORDS_PER_SEND = 1000

if (argv[2] === 'mqtt') {
  const topic = `${env.PREFIX}/counted`
  let count = 0
  const client = mqtt.connect(`mqtt://127.0.0.1:${env.MQTT_PORT}`, {
    clientId: env.CLIENT_ID ?? '',
    clean: false,
    protocolVersion: 5,
    properties: { sessionExpiryInterval: 86_400 },
  })
  client.on('message', () => {
    count++
  })
  setInterval(() => client.publish(topic, String(count), { qos: 0 }), 50)
} else {
  const { KAFKA = '', TOPIC = '', MESSAGES, DEVICES, PAYLOAD_BYTES } = env
  const backlog = { messages: Number(MESSAGES), devices: Number(DEVICES), payloadBytes: Number(PAYLOAD_BYTES) }
  const timestamp = Math.floor(Date.now() / 1000)
  const all = Array.from({ length: backlog.messages }, (_, seq) => record(seq, backlog, timestamp))
  const kafka = new kafkajs.Kafka({ brokers: [KAFKA], logLevel: kafkajs.logLevel.ERROR })
  const producer = kafka.producer({
    idempotent: true,
    maxInFlightRequests: 1,
    createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
  })
  await producer.connect()
  for (let from = 0; from < all.length; from += RECORDS_PER_SEND)
    await producer.send({ topic: TOPIC, acks: -1, messages: all.slice(from, from + RECORDS_PER_SEND) })
  setInterval(() => {}, 60_000) // is measured until it is stopped
}
