// npm run simulate:faults: many more runs of the simulation than the tests do; a run that breaks a promise is printed
// with what replays it.
//   npm run simulate:faults -- --runs 1000000 [--seed 1 --path 0:1]
import { parseArgs } from 'node:util'
import fc from 'fast-check'
import { bridgeSteps, runBridge } from './bridge.js'

const { values: flags } = parseArgs({
  options: { runs: { type: 'string', default: '100000' }, seed: { type: 'string' }, path: { type: 'string' } },
})
const numRuns = Number(flags.runs)
if (!Number.isInteger(numRuns) || numRuns < 1) {
  process.stderr.write('--runs must be a whole number above 0\n')
  process.exit(1)
}
const replay = {
  ...(flags.seed === undefined ? {} : { seed: Number(flags.seed) }),
  ...(flags.path === undefined ? {} : { path: flags.path }),
}
const startedMs = performance.now()
const details = fc.check(
  fc.property(bridgeSteps, (steps) => runBridge(steps)),
  { numRuns, ...replay },
)
const seconds = Math.round((performance.now() - startedMs) / 1000)
if (details.failed) {
  process.stdout.write(
    `${fc.defaultReportMessage(details)}\nreplay: --seed ${details.seed} --path ${details.counterexamplePath}\n`,
  )
  process.exit(1)
}
process.stdout.write(`${details.numRuns} runs in ${seconds} s: every promise kept (seed ${details.seed})\n`)
