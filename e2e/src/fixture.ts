// What most tests begin and end with: servers, a platform on them, both services up; all of it gone afterwards.
import type { Cluster, ClusterOptions } from '@iot/stack/cluster'
import type { Server } from '@iot/stack/servers'
import { afterAll, afterEach, beforeAll, beforeEach, inject } from 'vitest'
import { createPlatform, type Platform, type Ports, portsOf } from './platform.js'
import { startServers } from './servers.js'

export type FixtureOptions = {
  /** Starts servers for this fixture alone, for tests that strike, configure or watch them. Else those of the run. */
  servers?: ClusterOptions | (() => ClusterOptions)
  /** Whether every test gets a platform of its own, on the same servers; else the file's tests share one. */
  forEachTest?: boolean
  /** Further doing before the platform is created, such as a proxy; returns where clients reach the servers. */
  reach?: (ports: Ports) => Ports | Promise<Ports>
  /** What is started; both services by default, until they are ready. */
  start?: (platform: Platform) => unknown
}

export type Fixture = {
  readonly platform: Platform
  /** The fixture's own servers. @throws where it has none */
  readonly cluster: Cluster
}

/** Registers what starts and ends a platform; the handle may be used within tests and hooks. */
export function usePlatform(options: FixtureOptions = {}): Fixture {
  const { servers, forEachTest = false, reach = (ports) => ports, start = ({ up }) => up() } = options
  let cluster: Cluster | undefined
  let platform: Platform | undefined

  const before = forEachTest ? beforeEach : beforeAll
  const after = forEachTest ? afterEach : afterAll
  if (servers) {
    beforeAll(async () => {
      cluster = await startServers(typeof servers === 'function' ? servers() : servers)
    })
    afterAll(() => cluster?.stop())
  }
  before(async () => {
    const ports = cluster ? portsOf(cluster) : sharedPorts()
    platform = await createPlatform(await reach(ports))
    await start(platform)
  })
  after(async () => {
    await platform?.down()
    platform = undefined
  })

  return {
    get platform() {
      if (!platform) throw new Error('the platform is not there before the tests begin')
      return platform
    },
    get cluster() {
      if (!cluster) throw new Error('the fixture has no servers of its own: give it `servers`')
      return cluster
    },
  }
}

/** Kafka of the run, for a test that strikes, configures or watches other servers only: it can be used and not touched. */
export function sharedKafka(): Server {
  const untouchable = () => Promise.reject(new Error("this Kafka is the whole run's"))
  const port = inject('kafkaPort')
  const stop = async () => {} // when its last user has gone
  return { name: 'Kafka', port, signal: untouchable, start: untouchable, stop, onExit: () => {} }
}

/** The ports of the servers that all tests of a run share. */
export const sharedPorts = (): Ports => ({
  kafka: inject('kafkaPort'),
  redis: inject('redisPort'),
  mqtt: inject('mqttPort'),
})
