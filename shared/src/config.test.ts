import { expect, test } from 'vitest'
import { ConfigError, commonSchema, integer, loadConfig, url } from './config.js'

const shape = {
  ...commonSchema,
  BATCH_SIZE: integer(500, 1, 1000),
  REDIS_URL: url('redis://127.0.0.1:6379', ['redis']),
}

const linesOf = (env: NodeJS.ProcessEnv): string[] => {
  try {
    loadConfig(shape, env)
    return []
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError)
    return (error as ConfigError).lines
  }
}

test('an empty environment gives the defaults, and an empty variable counts as not given', () => {
  const expected = {
    KAFKA_BROKERS: ['127.0.0.1:19092'],
    KAFKA_TOPIC: 'iot-data',
    LOG_LEVEL: 'info',
    SHUTDOWN_TIMEOUT_MS: 10_000,
    BATCH_SIZE: 500,
    REDIS_URL: 'redis://127.0.0.1:6379',
  }
  expect(loadConfig(shape, {})).toEqual(expected)
  expect(loadConfig(shape, { BATCH_SIZE: '', KAFKA_TOPIC: '' })).toEqual(expected)
})

test('values are read from text', () => {
  const env = { KAFKA_BROKERS: 'a:9092, b:9093', BATCH_SIZE: '7', LOG_LEVEL: 'debug' }
  expect(loadConfig(shape, env)).toMatchObject({ KAFKA_BROKERS: ['a:9092', 'b:9093'], BATCH_SIZE: 7 })
})

test('each mistake has one line that names the variable, and all are told at once', () => {
  expect(
    linesOf({ BATCH_SIZE: '0', KAFKA_BROKERS: 'localhost', REDIS_URL: 'http://x', SHUTDOWN_TIMEOUT_MS: '1s' }),
  ).toEqual([
    'KAFKA_BROKERS: must be host:port, or several with commas',
    'SHUTDOWN_TIMEOUT_MS: must be a whole number',
    'BATCH_SIZE: must be at least 1',
    'REDIS_URL: must be a URL that begins with redis://',
  ])
  expect(linesOf({ LOG_LEVEL: 'loud' })[0]).toMatch(/^LOG_LEVEL: .*info/)
})
