import { type ConfigError, loadConfig } from '@iot/shared/config'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { bridgeSchema } from './config.js'
import { parseTopic, prefixProblem } from './topics.js'

test.each([
  ['devices/a b/data', 'devices', { deviceId: 'a b', kind: 'data' }],
  ['devices/a/hello', 'devices', { deviceId: 'a', kind: 'hello' }],
  ['devices/a/commands', 'devices', { deviceId: 'a', kind: 'commands' }],
  ['devices/a/commands/ack', 'devices', { deviceId: 'a', kind: 'commands/ack' }],
  ['site/1/devices//data', 'site/1/devices', { deviceId: '', kind: 'data' }],
  ['a/data/data', 'a', { deviceId: 'data', kind: 'data' }],
])('%s under %s', (topic, prefix, expected) => {
  expect(parseTopic(topic, prefix)).toEqual(expected)
})

test.each([
  ['plant/sensor-77/data', 'plant/hall1'], // an old subscription: the same length is not the same prefix
  ['plant/hall12/a/data', 'plant/hall1'],
  ['devices/a/b/data', 'devices'],
  ['devices/a/data/', 'devices'],
  ['devices/a/Data', 'devices'],
  ['devices/a', 'devices'],
  ['devices/data', 'devices'],
  ['devices', 'devices'],
  ['', 'devices'],
  ['fleet/a/data', '$share/g/fleet'],
  ['x/devices/a/data', 'devices'],
])('%s is not under %s', (topic, prefix) => {
  expect(parseTopic(topic, prefix)).toBeNull()
})

const level = fc.stringMatching(/^[a-z0-9-]{1,8}$/)
const kind = fc.constantFrom('data', 'hello', 'commands', 'commands/ack')

test('what is put together is taken apart again, and only under its own prefix', () => {
  fc.assert(
    fc.property(fc.array(level, { minLength: 1, maxLength: 3 }), level, kind, (levels, deviceId, last) => {
      const prefix = levels.join('/')
      const topic = `${prefix}/${deviceId}/${last}`
      expect(parseTopic(topic, prefix)).toEqual({ deviceId, kind: last })
      expect(parseTopic(`x${topic}`, prefix)).toBeNull()
      expect(parseTopic(topic, `${prefix.slice(0, -1)}~`)).toBeNull()
    }),
  )
})

test.each([
  ['$share/g/devices', '$share keeps no order'],
  ['$SYS', 'must not begin with $'],
  ['a/+/b', 'wildcards'],
  ['a#', 'wildcards'],
  ['/devices', 'empty level'],
  ['devices/', 'empty level'],
  ['a//b', 'empty level'],
  ['a b', 'spaces'],
  ['a\u0000', 'control characters'],
  ['x'.repeat(1001), 'at most 1000 bytes'],
])('the prefix %j is refused at start', (prefix, words) => {
  expect(prefixProblem(prefix)).toContain(words)
  try {
    loadConfig(bridgeSchema, { MQTT_TOPIC_PREFIX: prefix })
    expect.unreachable()
  } catch (error) {
    expect((error as ConfigError).lines).toEqual([`MQTT_TOPIC_PREFIX: ${prefixProblem(prefix)}`])
  }
})

test.each(['devices', 'a', 'site/1/devices', 'größe', 'a$b'])('the prefix %s is accepted', (prefix) => {
  expect(loadConfig(bridgeSchema, { MQTT_TOPIC_PREFIX: prefix }).MQTT_TOPIC_PREFIX).toBe(prefix)
})
