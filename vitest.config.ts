// Unit tests stand beside the code, tests on real servers in e2e/; those share one set of servers.

import { defineConfig } from 'vitest/config'
import { BaseSequencer, type TestSpecification } from 'vitest/node'

// the longest first, so that none of them runs alone at the end; they wait more than they work
const LONGEST = ['outage', 'security', 'links', 'sessions', 'kill', 'group', 'refusals', 'durability', 'hostile']

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification) => {
      const at = LONGEST.findIndex((name) => moduleId.endsWith(`${name}.test.ts`))
      return at === -1 ? LONGEST.length : at
    }
    return [...files].sort((a, b) => rank(a) - rank(b))
  }
}

export default defineConfig({
  test: {
    include: ['{shared,bridge,consumer,simulator,stack,e2e}/src/**/*.test.ts'],
    globalSetup: ['e2e/src/global-setup.ts'],
    testTimeout: 60_000,
    hookTimeout: 90_000,
    maxWorkers: 6,
    sequence: { sequencer: LongestFirst },
  },
})
