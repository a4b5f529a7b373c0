// The calculation against what was measured on Redis 7.0.15 (npm run bench -- --only memory), and its own sense.
import { expect, test } from 'vitest'
import { allocated, type Fleet, size } from './sizing.js'

const fleet = (changed: Partial<Fleet> = {}): Fleet => ({
  ...{ devices: 10_000, intervalSeconds: 10, payloadBytes: 200, idBytes: 13, historySeconds: 18_000 },
  ...{ retentionSeconds: 86_400, replicas: 1, outageSeconds: 600 },
  ...{ compactEntries: 320, compactMemberBytes: 2048, compactStateBytes: 512 },
  ...changed,
})
/** A history of so many readings. */
const holding = (count: number, payloadBytes: number, compactEntries: number) =>
  fleet({ payloadBytes, compactEntries, intervalSeconds: 18_000 / (count - 1) })

test.each([
  [1, 16],
  [64, 64],
  [117, 128],
  [207, 224],
  [625, 640],
  [1069, 1280],
  [7500, 8192],
])('%i bytes take %i', (bytes, taken) => {
  expect(allocated(bytes)).toBe(taken)
})

// [readings, bytes of payload, bytes measured for a reading]
test.each([
  [5, 50, 155],
  [60, 50, 139],
  [300, 50, 137],
  [5, 140, 283],
  [60, 140, 241],
  [300, 140, 219],
  [5, 1000, 1256],
  [60, 1000, 1094],
  [300, 1000, 1093],
])('%i compact readings with %i bytes take what was measured', (count, payload, measured) => {
  const { bytesPerReading } = size(holding(count, payload, 512))
  expect(Math.abs(bytesPerReading / measured - 1)).toBeLessThan(0.05)
})

test.each([
  [60, 50, 236],
  [300, 50, 263],
  [3600, 50, 223],
  [18_000, 50, 235],
  [60, 140, 333],
  [3600, 140, 319],
  [18_000, 140, 331],
  [60, 1000, 1388],
  [3600, 1000, 1375],
  [18_000, 1000, 1405],
])('%i readings with %i bytes that are not compact take what was measured', (count, payload, measured) => {
  const { bytesPerReading } = size(holding(count, payload, 0))
  expect(Math.abs(bytesPerReading / measured - 1)).toBeLessThan(0.12)
})

test('what a fleet needs grows with what it sends', () => {
  const base = size(fleet())
  expect(base.readingsPerSecond).toBe(1000)
  expect(base.readingsPerDevice).toBe(1801)
  const twice = size(fleet({ devices: 20_000 }))
  for (const name of ['redisData', 'kafkaDisk', 'redisDisk', 'queuedBytes'] as const)
    expect(twice[name] / base[name]).toBeCloseTo(2, 2)
  expect(size(fleet({ replicas: 3 })).kafkaDisk).toBe(3 * base.kafkaDisk)
  expect(base.redisContainer).toBeGreaterThan(2 * base.redisData)
})
