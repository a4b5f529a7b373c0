import { expect, test } from 'vitest'
import { unknownVariables } from './variables.js'

test.each([
  ['API_KEYS', 'API_KEY'],
  ['MQTT_HOST', 'MQTT_URL'],
  ['KAFKA_BROKER', 'KAFKA_BROKERS'],
  ['REDIS_PASWORD', 'REDIS_PASSWORD'],
  ['HISTORY_RETENTION', 'HISTORY_RETENTION_SECONDS'],
  ['BATCH_SIZE_FILE', 'BATCH_SIZE'],
  ['DEVICE_OFFLINE_TIMOUT', 'DEVICE_OFFLINE_TIMEOUT'],
  ['DEVICE_OFFLINE_TIMEOUT_MS', 'DEVICE_OFFLINE_TIMEOUT'],
  ['COMMAND_TIMEOUT', 'COMMAND_TIMEOUT_MS'],
  ['MAX_PAYLOAD_BYTE', 'MAX_PAYLOAD_BYTES'],
  ['KAKFA_BROKERS', 'KAFKA_BROKERS'],
])('%s was meant to be %s', (wrong, right) => {
  expect(unknownVariables({ [wrong]: 'x' })).toEqual([
    `${wrong}: is no variable of this platform, did you mean ${right}?`,
  ])
})

test('what belongs to others, or is set by Kubernetes, is left alone', () => {
  const env = {
    PATH: '/bin',
    API_KEY_FILE: '/k',
    REDIS_PORT: 'tcp://10.0.0.1:6379',
    REDIS_PORT_6379_TCP: 'tcp://10.0.0.1:6379',
    REDIS_PORT_6379_TCP_ADDR: '10.0.0.1',
    REDIS_SERVICE_HOST: '10.0.0.1',
    KAFKA_SERVICE_PORT_CLIENT: '9092',
    MQTT_BROKER_SERVICE_HOST: '10.0.0.1',
    KAFKA_PORT_9092_TCP: 'tcp://10.0.0.1:9092',
    API_PORT: 'tcp://10.0.0.1:80',
    MQTT_METRICS_PORT: 'udp://10.0.0.1:80',
    KAFKA_HEAP_OPTS: '-Xmx1g',
    KAFKA_HOME: '/opt/kafka',
    COMMAND_MODE: 'unix2003',
    LOGLEVEL: 'debug',
    HISTFILE: '/h',
    MAX_CHILDREN: '3',
    DATA_DIRS: '/d',
    DEVICE_TYPE: 'x',
    MQTT_PORT: '1883',
    BATCH_SIZE: '1',
  }
  expect(unknownVariables(env)).toEqual([])
})
