// The promises over many thousand runs that nobody thought of: npm run simulate:faults -- --runs 1000000 does more.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { BRIDGE_FAULTS, bridgeSteps, runBridge } from './bridge.js'

test('what the bridge acknowledges is stored, once, in order, whatever happens', () => {
  fc.assert(
    fc.property(bridgeSteps, (steps) => runBridge(steps)),
    { numRuns: 10_000 },
  )
})

test.each(BRIDGE_FAULTS)('a planted fault is found: %s', (fault) => {
  const { failed } = fc.check(
    fc.property(bridgeSteps, (steps) => runBridge(steps, fault)),
    { numRuns: 10_000 },
  )
  expect(failed).toBe(true)
})
