// One schema for each service: docs/configuration.md, .env.example and the compose file say the same as it does.
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { bridgeSchema } from '@iot/bridge/config'
import { consumerSchema } from '@iot/consumer/config'
import { readerSchema } from '@iot/reader/config'
import { commonSchema } from '@iot/shared/common-config'
import { VARIABLES } from '@iot/shared/variables'
import { root } from '@iot/stack/prepare'
import { expect, test } from 'vitest'
import { z } from 'zod'

const read = (name: string) => readFileSync(join(root, name), 'utf8')
const schemas = { bridge: bridgeSchema, consumer: consumerSchema, reader: readerSchema }
const shape = { ...bridgeSchema, ...consumerSchema, ...readerSchema }
const defaults = Object.fromEntries(
  Object.entries(z.object(shape).parse({})).map(([name, value]) => [name, String(value)]),
)
const names = Object.keys(shape).sort()

test('the names that are known to be ours are those of the schemas', () => {
  expect([...VARIABLES].sort()).toEqual(names)
})

const belongsTo = (name: string) => {
  const services = Object.entries(schemas).filter(([, schema]) => name in schema)
  return name in commonSchema ? 'all' : services.map(([service]) => service).join(', ')
}

test('docs/configuration.md has every variable, with its service and default', () => {
  const rows = [...read('docs/configuration.md').matchAll(/^\| `([A-Z_]+)` \| ([\w, ]+) \| (.*?) \|/gm)]
  expect(rows.map(([, name]) => name).sort()).toEqual(names)
  for (const [, name = '', service, fallback] of rows) {
    expect(service, name).toBe(belongsTo(name))
    if (defaults[name] !== undefined) expect(fallback, name).toBe(defaults[name] ? `\`${defaults[name]}\`` : 'none')
  }
})

test('the compose file gives each service its variables, with the same defaults', () => {
  const compose = read('docker-compose.yml')
  const within = (service: string) => new RegExp(`^  ${service}:\\n((?: {4}.*\\n|\\n)*)`, 'm').exec(compose)?.[1] ?? ''
  for (const [service, own] of [
    ['mqtt-kafka-bridge', bridgeSchema],
    ['kafka-redis-consumer', consumerSchema],
    ['reader', readerSchema],
  ] as const) {
    const given = [...within(service).matchAll(/^ {6}([A-Z_]+): (.*)$/gm)]
    const secretFiles = Object.keys(own)
      .filter((name) => /(PASSWORD|API_KEY|READ_KEY)$/.test(name))
      .map((name) => `${name}_FILE`)
    expect(given.map(([, name]) => name).sort(), service).toEqual([...Object.keys(own), ...secretFiles].sort())
    for (const [, name = '', value = ''] of given) {
      const [, from, fallback] = /^\$\{([A-Z_]+):-(.*)\}$/.exec(value) ?? []
      if (from === undefined) continue // fixed by the compose file: addresses inside its network
      expect(from).toBe(name)
      const isInside = fallback?.includes('redpanda:') || fallback?.includes('redis:') // its own network's addresses
      if (!isInside) expect(fallback, name).toBe(defaults[name] ?? '')
    }
  }
})

test('.env.example names what the compose file takes, with the same defaults', () => {
  const taken = [...read('docker-compose.yml').matchAll(/\$\{([A-Z_]+):-(.*?)\}/g)].map(([, name]) => name)
  const lines = [...read('.env.example').matchAll(/^# ([A-Z_]+)=(\S*)/gm)]
  const shown = new Set(lines.map(([, name]) => name))
  expect([...shown].sort()).toEqual([...new Set([...taken, 'COMPOSE_PROFILES'])].sort())
  for (const [, name = '', value] of lines.filter(([line]) => !line.includes('mosquitto'))) {
    const isInside = value?.includes('redpanda:') || value?.includes('redis:')
    if (defaults[name] !== undefined && !isInside) expect(value, name).toBe(defaults[name])
  }
})

const hasCompose = spawnSync('docker', ['compose', 'version']).status === 0

test.runIf(hasCompose)('Compose accepts the file with every profile', () => {
  for (const profiles of ['', 'local', 'monitoring', 'local,monitoring']) {
    const env = { PATH: process.env.PATH, HOME: process.env.HOME, COMPOSE_PROFILES: profiles }
    const { status, stderr } = spawnSync('docker', ['compose', 'config', '--quiet'], {
      cwd: root,
      env,
      encoding: 'utf8',
    })
    expect(status, stderr).toBe(0)
    expect(stderr).toBe('')
  }
})
