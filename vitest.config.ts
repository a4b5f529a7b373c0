// Unit tests stand beside the code, tests on real servers in e2e/; those share one set of servers.
import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['{shared,bridge,consumer,simulator,stack,e2e}/src/**/*.test.ts'],
    globalSetup: ['e2e/src/global-setup.ts'],
    testTimeout: 60_000,
    hookTimeout: 90_000,
    maxWorkers: 5,
  },
})
