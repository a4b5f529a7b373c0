// The consumer: Kafka in, Redis out, offsets committed after. Wiring only.
import { defaultGroupId } from '@iot/shared/common-config'
import { loadConfig } from '@iot/shared/config'
import type { DeadLetter } from '@iot/shared/contract'
import { addHealthRoutes } from '@iot/shared/health'
import { createKafka, kafkaOptions } from '@iot/shared/kafka/client'
import { createConnections } from '@iot/shared/kafka/connections'
import { createTopics, topicOptions } from '@iot/shared/kafka/topics'
import { runService } from '@iot/shared/lifecycle'
import { createPublisher } from '@iot/shared/publisher'
import { redisAccess } from '@iot/shared/redis/config'
import { fastify } from 'fastify'
import { consumerNeeds, consumerSchema, consumerWarnings, redisLimits } from './config.js'
import { createKafkaSource } from './kafka-source.js'
import { createRedisSink } from './redis/sink.js'
import { createStoring } from './storing.js'

const SERVICE = 'kafka-redis-consumer'

runService(
  SERVICE,
  () => loadConfig(consumerSchema, process.env, consumerNeeds),
  async (config, logger, lifecycle) => {
    for (const warning of consumerWarnings(config)) logger.warn(warning)
    const { KAFKA_TOPIC: topic, KAFKA_GROUP_ID: groupId = defaultGroupId(topic) } = config
    const kafka = createKafka(SERVICE, config, logger)
    const connect = () => createConnections(kafkaOptions(SERVICE, config, logger))
    const topics = createTopics(kafka, topicOptions(config), logger)
    const publisher = createPublisher(
      {
        topic,
        service: SERVICE,
        part: 'dead_letters',
        connections: connect(),
        topics,
      },
      logger,
    )
    const sink = createRedisSink(
      {
        url: config.REDIS_URL,
        access: redisAccess(config),
        retentionSeconds: config.HISTORY_RETENTION_SECONDS,
        durability: config.REDIS_DURABILITY,
        whenFull: config.REDIS_WHEN_FULL,
        limits: redisLimits(config),
      },
      logger,
    )

    const deadLetter = (letter: DeadLetter) => new Promise<void>((resolve) => publisher.deadLetter(letter, resolve))
    const store = createStoring({ sink, deadLetter, topic, logger })

    const source = createKafkaSource(
      {
        connect,
        prepare: topics.ensure,
        kept: () => topics.kept(topic),
        write: store,
        onFatal: lifecycle.fail,
        logger,
      },
      { topic, groupId, batchSize: config.BATCH_SIZE, batchIntervalMs: config.BATCH_INTERVAL_MS },
    )
    const health = fastify({ forceCloseConnections: true }) // its answers are there at once: nobody is waited for
    addHealthRoutes(health, { kafka: source.check, redis: sink.check, dead_letters: publisher.check })

    lifecycle.onStop('health', () => health.close())
    lifecycle.onStop('redis', sink.stop)
    lifecycle.onStop('publisher', publisher.stop)
    lifecycle.onStop('kafka', source.stop)
    await health.listen({ host: config.HEALTH_HOST, port: config.HEALTH_PORT })
    logger.info({ addresses: health.addresses() }, 'health listens')
    sink.start()
    publisher.start()
    source.start()
  },
)
