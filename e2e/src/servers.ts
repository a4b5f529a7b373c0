// The real servers that the tests run on: containers where a Docker engine answers, else local processes;
// TEST_STACK=docker|local forces one.
import { type Cluster, type ClusterOptions, startCluster } from '@iot/stack/cluster'

/** Starts Kafka, Redis and Mosquitto for a test or a whole run. */
export async function startServers(options: ClusterOptions = {}): Promise<Cluster> {
  if (process.env.TEST_STACK === 'local') return startCluster(options)
  const { hasEngine, startContainers } = await import('./containers.js') // half a second of processor
  // decided once for a run: its workers inherit what its set-up has found
  process.env.TEST_STACK ||= (await hasEngine()) ? 'docker' : 'local'
  if (process.env.TEST_STACK === 'docker') return startContainers(options)
  if (process.env.TEST_STACK === 'local') return startCluster(options)
  throw new Error(`TEST_STACK must be docker or local, not ${process.env.TEST_STACK}`)
}
