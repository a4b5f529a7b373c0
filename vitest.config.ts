// Two projects: `unit`, beside the code, from source, without servers; `e2e`, on real servers that its files share.
import { defineConfig } from 'vitest/config'
import { BaseSequencer, type TestSpecification } from 'vitest/node'

// the longest first, so that none of them runs alone at the end; they wait more than they work
const LONGEST = [
  'security',
  'page',
  'outage',
  'links',
  'live',
  'group-cluster',
  'group',
  'topics-consumer',
  'sessions',
  'reads',
  'standstill-consumer',
  'chaos/hostile',
  'takeover',
  'bounds',
  'cluster',
  'kill',
  'standstill-redis',
  'large-messages',
  'standstill-kafka',
  'dlq',
  'canary',
  'replies-redis',
]

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification) => {
      const at = LONGEST.findIndex((name) => moduleId.endsWith(`${name}.test.ts`))
      return at === -1 ? LONGEST.length : at
    }
    return [...files].sort((a, b) => rank(a) - rank(b))
  }
}

const SERVERLESS = ['e2e/src/chaos/check.test.ts', 'e2e/src/simulation/*.test.ts']
const SOURCES = '{shared,bridge,consumer,reader,simulator,stack}/src/**/*.test.ts'
const PAGE = 'reader/page/*.test.ts'

export default defineConfig({
  resolve: {
    alias: [{ find: /^@iot\/(\w+)\/(.*)$/, replacement: `${import.meta.dirname}/$1/src/$2.ts` }],
  },
  test: {
    maxWorkers: 6,
    sequence: { sequencer: LongestFirst },
    projects: [
      {
        extends: true,
        // not isolated: what is tested has no state of its module but metrics, and loading it takes longer than the tests
        test: { name: 'unit', isolate: false, testTimeout: 60_000, include: [SOURCES, PAGE, ...SERVERLESS] },
      },
      {
        extends: true,
        test: {
          name: 'e2e',
          include: ['e2e/src/**/*.test.ts'],
          exclude: SERVERLESS,
          globalSetup: ['e2e/src/global-setup.ts'],
          testTimeout: 400_000,
          hookTimeout: 400_000,
        },
      },
    ],
  },
})
