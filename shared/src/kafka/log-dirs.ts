// How many bytes partitions take on a broker's disk (DescribeLogDirs), which kafkajs does not ask.
// https://kafka.apache.org/protocol.html#The_Messages_DescribeLogDirs
import { createRequire } from 'node:module'
import { errorOf, type KafkaConnections } from './connections.js'

type Encoder = {
  writeInt32(value: number): Encoder
  writeString(value: string): Encoder
  writeArray(values: unknown[]): Encoder
}
type Decoder = {
  readInt16(): number
  readInt32(): number
  readInt64(): bigint
  readString(): string
  readBoolean(): boolean
  readArray<T>(read: (decoder: Decoder) => T): T[]
}
const require = createRequire(import.meta.url)
const EncoderClass = require('kafkajs/src/protocol/encoder') as new () => Encoder
const DecoderClass = require('kafkajs/src/protocol/decoder') as new (bytes: Buffer) => Decoder

const API_KEY = 35
const VERSION = 1 // the last one without compact strings; Kafka 4 knows none that is older

type Dir = { errorCode: number; topics: { name: string; partitions: { partition: number; bytes: number }[] }[] }

const encode = (topic: string, partitions: number[]): Encoder => {
  const wanted = new EncoderClass().writeString(topic).writeArray(partitions)
  return new EncoderClass().writeArray([wanted])
}

const decode = (bytes: Buffer): Dir[] => {
  const decoder = new DecoderClass(bytes)
  decoder.readInt32() // throttle time
  return decoder.readArray((dir) => {
    const errorCode = dir.readInt16()
    dir.readString() // the directory
    const topics = dir.readArray((topic) => ({ name: topic.readString(), partitions: topic.readArray(readPartition) }))
    return { errorCode, topics }
  })
}

const readPartition = (decoder: Decoder) => {
  const partition = decoder.readInt32()
  const bytes = Number(decoder.readInt64())
  decoder.readInt64() // how far a replica is behind
  decoder.readBoolean() // whether it is being moved here
  return { partition, bytes }
}

/**
 * Bytes of partitions on one broker; those that it has no replica of are missing.
 * @throws when the broker does not answer, or may not tell us (Describe on the cluster)
 */
export async function bytesOf(
  connections: KafkaConnections,
  broker: number,
  topic: string,
  partitions: number[],
): Promise<Map<number, number>> {
  const dirs = await connections.ask<Dir[]>(broker, 'Metadata', { topics: [] }, (made) => {
    Object.assign(made.request, { apiKey: API_KEY, apiVersion: VERSION, apiName: 'DescribeLogDirs' })
    made.request.encode = async () => encode(topic, partitions)
    made.response = { decode: async (bytes) => decode(bytes), parse: async (decoded) => decoded }
  })
  const refusal = dirs.length === 0 ? new Error('no directory is told') : errorOf(dirs[0]?.errorCode ?? 0)
  if (refusal) throw refusal
  const own = dirs.flatMap(({ topics }) => topics.filter(({ name }) => name === topic))
  return new Map(own.flatMap((one) => one.partitions.map(({ partition, bytes }) => [partition, bytes])))
}
