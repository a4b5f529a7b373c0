// One set of real servers for all end-to-end tests; those that stop a server start their own.

import type { TestProject } from 'vitest/node'
import { installBrowser } from './browser.js'
import { startServers } from './servers.js'

declare module 'vitest' {
  interface ProvidedContext {
    kafkaPort: number
    redisPort: number
    mqttPort: number
  }
}

// for Java processes that live for a minute or two: most of the time of one is its compiler's and its collector's
process.env.JAVA_TOOL_OPTIONS ??= '-XX:TieredStopAtLevel=1 -XX:+UseSerialGC'

export default async function setup(project: TestProject) {
  installBrowser() // here, for a worker that waits for it would be taken for a dead one
  const cluster = await startServers()
  project.provide('kafkaPort', cluster.kafka.port)
  project.provide('redisPort', cluster.redis.port)
  project.provide('mqttPort', cluster.mosquitto.port)
  return cluster.stop
}
