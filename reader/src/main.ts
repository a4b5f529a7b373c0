// The reader: the platform's data over HTTP. It stands beside the way of the data and can hold up none of it. Wiring only.
import { readFileSync } from 'node:fs'
import { setPriority } from 'node:os'
import { loadConfig } from '@iot/shared/config'
import { apiOptions, checkApiAccess } from '@iot/shared/http/config'
import { createHttpServer } from '@iot/shared/http/server'
import { runService } from '@iot/shared/lifecycle'
import { redisAccess } from '@iot/shared/redis-config'
import { createBridgeDescription, forwardedCalls } from './calls/forward.js'
import { historyCalls } from './calls/history.js'
import { seriesCalls } from './calls/series.js'
import { stateCalls } from './calls/state.js'
import { statesCalls } from './calls/states.js'
import { readerNeeds, readerSchema, readerWarnings } from './config.js'
import { createDeviceIndex } from './device-index.js'
import { createLongReads } from './long-reads.js'
import { createPresence } from './presence.js'
import { createRedisReader } from './redis/connection.js'

const SERVICE = 'reader'
const PRIORITY = 10 // behind the services that store: where they share a core, they come first
const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }

runService(
  SERVICE,
  () => {
    const config = loadConfig(readerSchema, process.env, readerNeeds)
    checkApiAccess(config, 'READER_HOST', config.READER_HOST)
    return config
  },
  async (config, logger, lifecycle) => {
    setPriority(PRIORITY)
    for (const warning of readerWarnings(config)) logger.warn(warning)
    const redis = createRedisReader({ url: config.REDIS_URL, access: redisAccess(config) }, logger)
    const [key] = config.API_KEY ?? []
    const presence = createPresence(config.BRIDGE_URLS, key, logger)
    const longReads = createLongReads(redis)
    const index = createDeviceIndex(redis, {
      maxDevices: config.MAX_KNOWN_DEVICES,
      isOnline: (deviceId) => presence.current(deviceId) === true,
    })
    presence.onChange((deviceId, online) => {
      if (online) index.saw(deviceId)
    })
    const api = await createHttpServer(
      {
        title: 'IoT ingestion platform',
        description: 'Devices and their readings, and commands to devices.',
        version,
        host: config.READER_HOST,
        ...apiOptions(config),
        describeOthers: createBridgeDescription(config.BRIDGE_URLS),
      },
      [
        stateCalls({ redis, presence }),
        historyCalls({ longReads }),
        seriesCalls({ longReads }),
        statesCalls({ index, presence, longReads, position: async () => null }),
        forwardedCalls({ urls: config.BRIDGE_URLS, key, presence }),
      ],
      { redis: redis.check, bridge: presence.check },
      logger,
    )

    lifecycle.onStop('redis', redis.stop)
    lifecycle.onStop('presence', presence.stop)
    lifecycle.onStop('index', index.stop)
    lifecycle.onStop('api', api.stop)
    await api.app.listen({ host: config.READER_HOST, port: config.READER_PORT })
    logger.info({ addresses: api.app.addresses() }, 'API listens')
    redis.start()
    presence.start()
    index.start()
  },
)
