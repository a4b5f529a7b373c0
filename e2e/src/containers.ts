// The servers as containers, from the images that docker-compose.yml pins.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { assemble, type Cluster, type ClusterOptions } from '@iot/stack/cluster'
import { root } from '@iot/stack/prepare'
import { isKafkaUp, isMosquittoUp, isRedisUp, type Server, untilUp } from '@iot/stack/servers'
import { GenericContainer, getContainerRuntimeClient } from 'testcontainers'

const STOP_S = 20

/** Whether a Docker engine answers. */
export async function hasEngine(): Promise<boolean> {
  try {
    await getContainerRuntimeClient()
    return true
  } catch {
    return false
  }
}

/** As `startCluster`, with one broker and without further properties. */
export async function startContainers(options: ClusterOptions): Promise<Cluster> {
  const { kafka, kafkaProxy, redisOptions = [] } = options
  const containers: { remove(): Promise<unknown> }[] = []
  const start = async (
    name: string,
    container: GenericContainer,
    inside: number,
    port: number,
    isUp: (port: number) => Promise<boolean>,
  ): Promise<Server> => {
    const made = await container.withExposedPorts({ container: inside, host: port }).start()
    const { dockerode } = (await getContainerRuntimeClient()).container
    const own = dockerode.getContainer(made.getId())
    containers.push({ remove: () => own.remove({ force: true, v: true }) })
    await untilUp(() => isUp(port))
    return {
      name,
      port,
      async signal(signal) {
        await own.kill({ signal })
      },
      async stop() {
        if ((await own.inspect()).State.Running) await own.stop({ t: STOP_S })
      },
      async start() {
        await own.wait()
        await own.start()
        await untilUp(() => isUp(port))
      },
      onExit: () => {},
    }
  }
  return assemble(
    {
      kafka: async (port) => {
        if (kafka) return [kafka]
        const addresses = (host: string, at = port) => `internal://${host}:9092,external://${host}:${at}`
        const command = [
          ...'redpanda start --mode=dev-container --smp=1 --memory=512M --unsafe-bypass-fsync=false'.split(' '),
          ...'--set redpanda.write_caching_default=false --set redpanda.auto_create_topics_enabled=false'.split(' '),
          `--kafka-addr=${addresses('0.0.0.0')}`,
          `--advertise-kafka-addr=${addresses('127.0.0.1', kafkaProxy)}`,
        ]
        return [await start('Kafka', pinned('redpanda').withCommand(command), port, port, isKafkaUp)]
      },
      redis: (port) => {
        const command = ['redis-server', '--appendonly', 'yes', '--save', '', ...redisOptions]
        return start('Redis', pinned('redis').withCommand(command), 6379, port, isRedisUp)
      },
      mosquitto: (port) => {
        const content = readFileSync(join(root, 'stack', 'mosquitto', 'mosquitto.conf'), 'utf8')
        const target = '/mosquitto/config/mosquitto.conf'
        const container = pinned('mosquitto').withCopyContentToContainer([{ content, target }])
        return start('Mosquitto', container, 1883, port, isMosquittoUp)
      },
    },
    () => Promise.all(containers.map((container) => container.remove())),
  )
}

/** A container of the image that the compose file names for the service. */
function pinned(service: string): GenericContainer {
  const compose = readFileSync(join(root, 'docker-compose.yml'), 'utf8')
  const image = new RegExp(`^  ${service}:\\n(?:    .*\\n)*?    image: (\\S+)`, 'm').exec(compose)?.[1]
  if (!image) throw new Error(`docker-compose.yml names no image for ${service}`)
  return new GenericContainer(image)
}
