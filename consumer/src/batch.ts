// From the records of one partition to the work for each device, merged. Pure.
import { type DeadLetter, type DeviceMessage, decodeMessage } from '@iot/shared/contract'

/** A record as it was read from Kafka. */
export type SourceRecord = { key: Buffer | null; value: Buffer | null; offset: string }

/** One device's share of a batch, in order; never empty. */
export type DeviceWork = { deviceId: string; messages: DeviceMessage[]; records: SourceRecord[] }

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
