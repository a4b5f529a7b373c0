// Whatever stands on the topic is either a device's work or a dead letter with its bytes; nothing throws or is left out.
import { encodeMessage } from '@iot/shared/contract'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { planBatch } from './batch.js'

const bytes = fc.uint8Array({ maxLength: 60 }).map((array) => Buffer.from(array))
const foreign = fc.record({ key: fc.option(bytes), value: fc.option(bytes) })
const valid = fc
  .record({ id: fc.constantFrom('a', 'b', '__proto__', 'constructor'), payload: fc.json(), timestamp: fc.nat() })
  .map(({ id, payload, timestamp }) => ({
    key: Buffer.from(id),
    value: Buffer.from(encodeMessage(id, payload, String(timestamp))),
  }))
/** A valid record with one byte changed, left out or put in. */
const damaged = fc.tuple(valid, fc.nat(), fc.nat(255)).map(([{ key, value }, at, byte]) => {
  const changed = Buffer.from(value)
  changed[at % value.length] = byte
  return { key, value: changed }
})

test('every record is work or a dead letter, in order', () => {
  fc.assert(
    fc.property(fc.array(fc.oneof(foreign, valid, damaged)), (records) => {
      const batch = records.map((record, index) => ({ ...record, offset: String(index) }))
      const { devices, rejected } = planBatch(batch, 'iot-data/0')
      const worked = devices.flatMap((work) => work.records)
      expect(worked.length + rejected.length).toBe(batch.length)
      for (const { deviceId, messages, records: own } of devices) {
        expect(own.map(({ value }) => value?.toString())).toEqual(messages.map(({ text }) => text))
        expect(own.every(({ key }) => key?.toString() === deviceId)).toBe(true)
        const offsets = own.map(({ offset }) => Number(offset))
        expect(offsets).toEqual([...offsets].sort((a, b) => a - b))
      }
      for (const { source, value } of rejected) expect(value).toBe(batch[Number(source.split('@')[1])]?.value)
    }),
    { numRuns: 1000 },
  )
})
