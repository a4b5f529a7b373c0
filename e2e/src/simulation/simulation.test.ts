// The promises over many thousand runs that nobody thought of: npm run simulate:faults -- --runs 1000000 does more.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { BRIDGE_FAULTS, bridgeSteps, runBridge } from './bridge.js'
import { CONSUMER_FAULTS, consumerSteps, runConsumer } from './consumer.js'

test('what the bridge acknowledges is stored, once, in order, whatever happens', () => {
  fc.assert(
    fc.property(bridgeSteps, (steps) => runBridge(steps)),
    { numRuns: 10_000 },
  )
})

// a fault that one run in some thousands shows is found for sure; the first that shows it is enough
const HUNT = { numRuns: 200_000, endOnFailure: true }

test.each(BRIDGE_FAULTS)('a planted fault of the bridge is found: %s', (fault) => {
  const { failed } = fc.check(
    fc.property(bridgeSteps, (steps) => runBridge(steps, fault)),
    HUNT,
  )
  expect(failed).toBe(true)
})

test('what the consumers commit is written, in order, whatever happens', async () => {
  await fc.assert(
    fc.asyncProperty(consumerSteps, (steps) => runConsumer(steps)),
    { numRuns: 10_000 },
  )
})

test.each(CONSUMER_FAULTS)('a planted fault of the consumer is found: %s', async (fault) => {
  const { failed } = await fc.check(
    fc.asyncProperty(consumerSteps, (steps) => runConsumer(steps, fault)),
    HUNT,
  )
  expect(failed).toBe(true)
})
