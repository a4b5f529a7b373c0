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
const compose = read('docker-compose.yml')
const schemas = { bridge: bridgeSchema, consumer: consumerSchema, reader: readerSchema }
const shape = { ...bridgeSchema, ...consumerSchema, ...readerSchema }
const defaults = Object.fromEntries(
  Object.entries(z.object(shape).parse({})).map(([name, value]) => [name, String(value)]),
)
const names = Object.keys(shape).sort()
/** Bounds that the compose file sets, for it begins on a public broker: docs/configuration.md names them too. */
const BOUNDED: Record<string, string> = {
  HISTORY_MAX_READINGS: '100000',
  HISTORY_MAX_BYTES: '16000000',
  MAX_KNOWN_DEVICES: '200000',
  KAFKA_RETENTION_BYTES: '10000000000',
}
const composeDefaults: Record<string, string> = { ...defaults, ...BOUNDED }

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
    const bounded = BOUNDED[name]
    if (bounded) expect(fallback, name).toBe(`\`${defaults[name]}\`, under Compose \`${bounded}\``)
    else if (defaults[name] !== undefined)
      expect(fallback, name).toBe(defaults[name] ? `\`${defaults[name]}\`` : 'none')
  }
})

test('the compose file gives each service its variables, with the same defaults', () => {
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
      if (!isInside) expect(fallback, name).toBe(composeDefaults[name] ?? '')
    }
  }
})

test('.env.example names what the compose file takes, with the same defaults', () => {
  const taken = [...compose.matchAll(/\$\{([A-Z_]+):-(.*?)\}/g)].map(([, name]) => name)
  const lines = [...read('.env.example').matchAll(/^# ([A-Z_]+)=(\S*)/gm)]
  const shown = new Set(lines.map(([, name]) => name))
  expect([...shown].sort()).toEqual([...new Set([...taken, 'COMPOSE_PROFILES'])].sort())
  for (const [, name = '', value] of lines.filter(([line]) => !line.includes('mosquitto'))) {
    const isInside = value?.includes('redpanda:') || value?.includes('redis:')
    if (composeDefaults[name] !== undefined && !isInside) expect(value, name).toBe(composeDefaults[name])
  }
})

const containers = [
  ...(/^services:\n([\s\S]*?)^\S/m.exec(compose)?.[1] ?? '').matchAll(/^ {2}([\w-]+):\n((?: {4}.*\n|\n)*)/gm),
]

test('under Compose no port is open beyond this machine, and no log grows for ever', () => {
  expect(containers.length).toBeGreaterThan(8)
  const shared = /^x-service: &service\n((?: {2}.*\n)*)/m.exec(compose)?.[1] ?? ''
  expect(shared).toContain('logging: *logging')
  for (const [, name, text = ''] of containers) {
    for (const [, port] of text.matchAll(/'([^']*:\d+:\d+)'/g)) expect(port, name).toMatch(/^127\.0\.0\.1:/)
    expect(text, name).toMatch(/logging: \*logging|<<: \*service/)
  }
  expect(compose).toContain("options: { max-size: 10m, max-file: '3' }")
})

test('our own containers may do as little as SECURITY.md says', () => {
  const shared = /^x-service: &service\n((?: {2}.*\n)*)/m.exec(compose)?.[1]
  for (const setting of ['read_only: true', 'cap_drop: [ALL]', "security_opt: ['no-new-privileges:true']"])
    expect(shared).toContain(setting)
  const built = containers.filter(([, , text]) => text?.includes('build:'))
  expect(built.map(([, name]) => name)).toEqual(['mqtt-kafka-bridge', 'kafka-redis-consumer', 'reader', 'simulator'])
  for (const [, name, text] of built) expect(text, name).toContain('<<: *service')
  const image = read('Dockerfile')
  expect(image).toContain('USER node')
  expect(image).toContain('npm ci --omit=dev --ignore-scripts')
})

test("our broker's queue fits into its container, and into the limit at which it refuses senders", () => {
  const settings = Object.fromEntries(
    [...read('stack/mosquitto/mosquitto.conf').matchAll(/^(\w+) (\d+)$/gm)].map(([, name, value]) => [
      name,
      Number(value),
    ]),
  )
  const { max_queued_messages = 0, max_queued_bytes = 0, memory_limit = 0 } = settings
  const mosquitto = containers.find(([, name]) => name === 'mosquitto')?.[2]
  const containerBytes = Number(/mem_limit: (\d+)m/.exec(mosquitto ?? '')?.[1]) * 1024 * 1024
  const MESSAGE_BYTES = 350 // measured, beside the payload, of which there are two while it is sent
  expect(max_queued_messages * MESSAGE_BYTES + 2 * max_queued_bytes).toBeLessThan(memory_limit)
  expect(memory_limit).toBeLessThan(containerBytes)
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
