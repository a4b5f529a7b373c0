// npm run simulate:faults: many more runs of the simulations than the tests do; a run that breaks a promise is printed
// with what replays it.
//   npm run simulate:faults -- --runs 1000000 [--side bridge|consumer] [--seed 1 --path 0:1]
import { parseArgs } from 'node:util'
import fc from 'fast-check'
import { bridgeSteps, runBridge } from './bridge.js'
import { consumerSteps, runConsumer } from './consumer.js'

const SIDES = {
  bridge: fc.asyncProperty(bridgeSteps, async (steps) => runBridge(steps)),
  consumer: fc.asyncProperty(consumerSteps, (steps) => runConsumer(steps)),
}

const { values: flags } = parseArgs({
  options: {
    runs: { type: 'string', default: '100000' },
    side: { type: 'string' },
    seed: { type: 'string' },
    path: { type: 'string' },
  },
})
const numRuns = Number(flags.runs)
const sides = Object.entries(SIDES).filter(([name]) => flags.side === undefined || flags.side === name)
const problems = [
  ...(Number.isInteger(numRuns) && numRuns > 0 ? [] : ['--runs must be a whole number above 0']),
  ...(sides.length > 0 ? [] : ['--side must be bridge or consumer']),
]
if (problems.length > 0) {
  for (const problem of problems) process.stderr.write(`${problem}\n`)
  process.exit(1)
}
const replay = {
  ...(flags.seed === undefined ? {} : { seed: Number(flags.seed) }),
  ...(flags.path === undefined ? {} : { path: flags.path }),
}
for (const [side, property] of sides) {
  const startedMs = performance.now()
  const details = await fc.check(property as fc.IAsyncProperty<unknown>, { numRuns, ...replay })
  const seconds = Math.round((performance.now() - startedMs) / 1000)
  if (details.failed) {
    const again = `--side ${side} --seed ${details.seed} --path ${details.counterexamplePath}`
    process.stdout.write(`${fc.defaultReportMessage(details)}\nreplay: ${again}\n`)
    process.exit(1)
  }
  process.stdout.write(`${side}: ${numRuns} runs in ${seconds} s: every promise kept (seed ${details.seed})\n`)
}
