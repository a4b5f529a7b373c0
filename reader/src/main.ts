// The reader: the platform's data over HTTP. It stands beside the way of the data and can hold up none of it. Wiring only.
import { readFileSync } from 'node:fs'
import { getPriority, setPriority } from 'node:os'
import { defaultGroupId } from '@iot/shared/common-config'
import { loadConfig } from '@iot/shared/config'
import { deadLetterTopic } from '@iot/shared/contract'
import { apiOptions, checkApiAccess } from '@iot/shared/http/config'
import { createHttpServer } from '@iot/shared/http/server'
import { kafkaOptions } from '@iot/shared/kafka/client'
import { createConnections } from '@iot/shared/kafka/connections'
import { runService } from '@iot/shared/lifecycle'
import { redisAccess } from '@iot/shared/redis/config'
import { flowCalls } from './calls/flow.js'
import { createBridgeDescription, forwardedCalls } from './calls/forward.js'
import { historyCalls } from './calls/history.js'
import { liveCalls } from './calls/live.js'
import { seriesCalls } from './calls/series.js'
import { stateCalls } from './calls/state.js'
import { statesCalls } from './calls/states.js'
import { readerNeeds, readerSchema, readerWarnings } from './config.js'
import { createDeadLetters } from './dead-letters.js'
import { createDeviceIndex } from './device-index.js'
import { createFlow } from './flow.js'
import { createLive } from './live/live.js'
import { createLongReads } from './long-reads.js'
import { page } from './page.js'
import { createPresence } from './presence.js'
import { createRedisReader } from './redis/connection.js'
import { createStored } from './stored.js'

const SERVICE = 'reader'
const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }

runService(
  SERVICE,
  () => {
    const config = loadConfig(readerSchema, process.env, readerNeeds)
    checkApiAccess(config, 'READER_HOST', config.READER_HOST)
    return config
  },
  async (config, logger, lifecycle) => {
    // behind the services that store, which come first where they share a core; nobody but root may go ahead again
    setPriority(Math.max(getPriority(), config.READER_NICE))
    for (const warning of readerWarnings(config)) logger.warn(warning)
    const redis = createRedisReader({ url: config.REDIS_URL, access: redisAccess(config) }, logger)
    const [key] = config.API_KEY ?? []
    const presence = createPresence(config.BRIDGE_URLS, key, logger)
    const longReads = createLongReads(redis)
    const index = createDeviceIndex(redis, {
      maxDevices: config.MAX_LISTED_DEVICES,
      isOnline: (deviceId) => presence.current(deviceId) === true,
    })
    presence.onChange((deviceId, online) => {
      if (online) index.saw(deviceId)
    })
    const topic = config.KAFKA_TOPIC
    const connect = () => createConnections(kafkaOptions(SERVICE, config, logger))
    const stored = createStored(connect(), config.KAFKA_GROUP_ID ?? defaultGroupId(topic), topic)
    const live = createLive({
      topic,
      connect,
      stored,
      presence,
      flow: () => flow.current(),
      onReading: index.saw,
      maxStreams: config.MAX_LIVE_STREAMS,
      maxOfAddress: config.MAX_LIVE_STREAMS_PER_ADDRESS,
      onFatal: lifecycle.fail,
      logger,
    })
    const lettersConnections = connect()
    const letters = createDeadLetters(lettersConnections, deadLetterTopic(topic))
    const flow = createFlow({
      bridges: config.BRIDGE_URLS,
      consumers: config.CONSUMER_URLS,
      key,
      locate: live.locate,
      stored,
      letters,
      checks: { kafka: live.check, redis: redis.check },
    })
    const api = await createHttpServer(
      {
        title: 'IoT ingestion platform',
        description: 'Devices and their readings, and commands to devices.',
        version,
        host: config.READER_HOST,
        open: [page],
        ...apiOptions(config),
        describeOthers: createBridgeDescription(config.BRIDGE_URLS),
      },
      [
        stateCalls({ redis, presence }),
        historyCalls({ longReads }),
        seriesCalls({ longReads }),
        statesCalls({ index, presence, longReads, position: live.position }),
        liveCalls({ feed: live.feed }),
        flowCalls({ flow, letters }),
        forwardedCalls({ urls: config.BRIDGE_URLS, key, presence }),
      ],
      { redis: redis.check, bridge: presence.check, kafka: live.check },
      logger,
    )

    lifecycle.onStop('redis', redis.stop)
    lifecycle.onStop('presence', presence.stop)
    lifecycle.onStop('index', index.stop)
    lifecycle.onStop('stored', stored.stop)
    lifecycle.onStop('letters', lettersConnections.close)
    lifecycle.onStop('flow', flow.stop)
    lifecycle.onStop('api', api.stop)
    lifecycle.onStop('live', live.stop)
    await api.app.listen({ host: config.READER_HOST, port: config.READER_PORT })
    logger.info({ addresses: api.app.addresses() }, 'API listens')
    redis.start()
    presence.start()
    index.start()
    live.start()
    flow.start()
  },
)
