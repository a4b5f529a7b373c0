// The real servers that the tests run on: containers where a Docker engine answers, else local processes;
// TEST_STACK=docker|local forces one.
import { type Cluster, type ClusterOptions, startCluster } from '@iot/stack/cluster'

/** Starts Kafka, Redis and Mosquitto for a test or a whole run. */
export async function startServers(options: ClusterOptions = {}): Promise<Cluster> {
  const containers = () => import('./containers.js') // half a second of processor
  // decided once for a run: its workers inherit what its set-up has found
  process.env.TEST_STACK ||= (await (await containers()).hasEngine()) ? 'docker' : 'local'
  const { TEST_STACK: stack } = process.env
  if (stack === 'local') return startCluster(options)
  if (stack === 'docker') return (await containers()).startContainers(options)
  throw new Error(`TEST_STACK must be docker or local, not ${stack}`)
}
