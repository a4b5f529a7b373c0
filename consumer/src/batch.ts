// From the records of one partition to the work for each device, merged. Pure.
import { type DeadLetter, type DeviceMessage, decodeMessage } from '@iot/shared/contract'

/** A record as it was read from Kafka. */
export type SourceRecord = { key: Buffer | null; value: Buffer | null; offset: string }

/** One device's share of a batch, in order; never empty. `records` are what `messages` were read from, one for one. */
export type DeviceWork = { deviceId: string; messages: DeviceMessage[]; records: SourceRecord[] }

/** What last_state is to show, and where it stands in Kafka. @throws when the work is empty, which no plan makes it */
export function newestOf({ messages, records }: DeviceWork): { message: DeviceMessage; offset: string } {
  const message = messages.at(-1)
  const record = records.at(-1)
  if (!message || !record) throw new Error('a device without a message in a batch')
  return { message, offset: record.offset }
}

/** @param source names the partition, as `topic/partition` */
export function planBatch(records: SourceRecord[], source: string): { devices: DeviceWork[]; rejected: DeadLetter[] } {
  const devices = new Map<string, DeviceWork>()
  const rejected: DeadLetter[] = []
  for (const record of records) {
    const message = decodeMessage(record.key, record.value)
    if (!message) {
      rejected.push({ reason: 'invalid_message', source: `${source}@${record.offset}`, value: record.value })
      continue
    }
    const work = devices.get(message.deviceId)
    if (work) {
      work.messages.push(message)
      work.records.push(record)
    } else devices.set(message.deviceId, { deviceId: message.deviceId, messages: [message], records: [record] })
  }
  return { devices: [...devices.values()], rejected }
}
