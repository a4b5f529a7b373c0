// What the profile `monitoring` is made of: the rules fire on what they are for, and Prometheus really scrapes the services.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { claimPort } from '@iot/stack/ports'
import { ensurePrograms, root } from '@iot/stack/prepare'
import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import { createPlatform, eventually, type Platform } from './platform.js'

let platform: Platform
let dir: string
let prometheus: ChildProcess | undefined
beforeAll(async () => {
  const say = (line: string) => process.stderr.write(`${line}\n`)
  ensurePrograms([{ program: 'promtool', apt: 'prometheus', brew: 'prometheus' }], say)
  dir = mkdtempSync(join(tmpdir(), 'iot-monitoring-'))
  cpSync(join(root, 'monitoring'), dir, { recursive: true })
  platform = await createPlatform({ kafka: inject('kafkaPort'), redis: inject('redisPort'), mqtt: inject('mqttPort') })
  await platform.up({ reader: {} })
}, 180_000)
afterAll(async () => {
  prometheus?.kill()
  await platform?.down()
  rmSync(dir, { recursive: true, force: true })
})

test('the configuration and the rules are sound, and each rule fires on what it is for', () => {
  const promtool = (...args: string[]) => execFileSync('promtool', args, { cwd: dir, encoding: 'utf8', stdio: 'pipe' })
  expect(promtool('check', 'config', 'prometheus.yml')).toContain('SUCCESS')
  expect(promtool('test', 'rules', 'alerts.test.yml')).toContain('SUCCESS')
})

test('every metric that the rules and the dashboard ask for is there', async () => {
  const { bridge, consumer, reader } = platform
  const exposed = (await Promise.all([bridge, consumer, reader].map((service) => service.metrics()))).join('')
  const names = new Set([...exposed.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name))
  const asked = ['alerts.yml', 'grafana/dashboards/platform.json'].flatMap((file) => [
    ...readFileSync(join(dir, file), 'utf8').matchAll(/\b((?:iot|process|nodejs)_[a-z0-9_]+)/g),
  ])
  expect(asked.length).toBeGreaterThan(30)
  // a label that appears only with its first event hides that event from increase()
  expect(exposed).toMatch(/^iot_dead_letters_total\{reason="redis_rejected"\} 0$/m)
  expect(exposed).toMatch(/^iot_mqtt_stalls_total\{connection="ingestion"\} 0$/m)
  expect(exposed).toMatch(/^iot_live_closed_total\{reason="stalled"\} 0$/m)
  for (const [, name = ''] of asked) expect(names, name).toContain(name.replace(/_(bucket|sum|count)$/, ''))
})

test('Prometheus scrapes the services', async () => {
  const { bridge, consumer, reader, prefix } = platform
  const device = await platform.device()
  await device.publishAsync(`${prefix}/${platform.id('scraped')}/data`, '1', { qos: 1 })
  const config = readFileSync(join(dir, 'prometheus.yml'), 'utf8')
    .replace('mqtt-kafka-bridge:8000', new URL(bridge.url).host)
    .replace('kafka-redis-consumer:8001', new URL(consumer.url).host)
    .replace('reader:8002', new URL(reader.url).host)
  writeFileSync(join(dir, 'prometheus.yml'), config)
  const port = await claimPort()
  const args = [
    `--config.file=${dir}/prometheus.yml`,
    `--storage.tsdb.path=${dir}/data`,
    `--web.listen-address=127.0.0.1:${port}`,
  ]
  prometheus = spawn('prometheus', args, { stdio: 'ignore' })
  const ask = async (query: string) => {
    const reply = await fetch(`http://127.0.0.1:${port}/api/v1/query?query=${encodeURIComponent(query)}`)
    const { data } = (await reply.json()) as {
      data: { result: { metric: { job: string }; value: [number, string] }[] }
    }
    return Object.fromEntries(data.result.map(({ metric, value }) => [metric.job, Number(value[1])]))
  }
  await eventually(async () => Object.values(await ask('up')).join() === '1,1,1', 'all targets are up', 60_000)
  await eventually(
    async () => (await ask('iot_stored_messages_total')).consumer === 1,
    'the reading is counted',
    60_000,
  )
  expect(await ask('iot_ready')).toEqual({ bridge: 1, consumer: 1, reader: 1 })
}, 150_000)
