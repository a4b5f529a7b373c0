// Encrypted and authenticated connections on all three hops: readings flow; a wrong password or a certificate that is
// not trusted is said once and without the secret, the service lives on, is not ready, and gets through once it may.
import { execFile, execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createServer, type Server as TlsServer } from 'node:tls'
import { promisify } from 'node:util'
import { assemble, type Cluster } from '@iot/stack/cluster'
import { startKafka } from '@iot/stack/kafka'
import { claimPort } from '@iot/stack/ports'
import { prepare, root } from '@iot/stack/prepare'
import { isTlsUp, startMosquitto, startRedis } from '@iot/stack/servers'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { createPlatform, eventually, type Platform } from './platform.js'
import { createProxy, type TcpProxy } from './proxy.js'

const PASSWORD = 'right-secret-1'
const WRONG = 'wrong-secret-2'
const dir = mkdtempSync(join(tmpdir(), 'iot-security-'))
const pem = (name: string) => join(dir, `${name}.pem`)
const key = (name: string) => join(dir, `${name}.key`)
const text = (path: string) => readFileSync(path, 'utf8')

const openssl = (...args: string[]) => execFileSync('openssl', args, { stdio: 'pipe' })
/** A certificate and its key, for 127.0.0.1, signed by `issuer`, or by itself. */
function certify(name: string, issuer?: string) {
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  const signed = issuer ? ['-CA', pem(issuer), '-CAkey', key(issuer), '-addext', 'subjectAltName=IP:127.0.0.1'] : []
  const out = ['-subj', `/CN=${name}`, '-days', '2', '-keyout', key(name), '-out', pem(name)]
  openssl('req', '-x509', ...curve, ...signed, ...out)
}

const passwordFile = join(dir, 'mosquitto-passwords')
const setMqttPassword = (password: string) =>
  execFileSync('mosquitto_passwd', ['-b', '-c', passwordFile, 'bridge', password], { stdio: 'pipe' })

async function startSecured(wsPort: number): Promise<Cluster> {
  prepare((line) => process.stderr.write(`${line}\n`))
  const data = join(dir, 'data')
  mkdirSync(data)
  const listener = [`cafile ${pem('ca')}`, `certfile ${pem('server')}`, `keyfile ${key('server')}`]
  const mosquitto = [
    ...listener,
    'require_certificate true',
    'allow_anonymous false',
    `password_file ${passwordFile}`,
    `listener ${wsPort} 127.0.0.1`,
    'protocol websockets',
    ...listener,
  ]
  setMqttPassword(PASSWORD)
  writeFileSync(pem('keystore'), text(key('server')) + text(pem('server')))
  const plain = 'org.apache.kafka.common.security.plain.PlainLoginModule'
  const scram = 'org.apache.kafka.common.security.scram.ScramLoginModule'
  const kafka = {
    protocol: 'SASL_SSL',
    properties: [
      'sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512',
      'sasl.mechanism.inter.broker.protocol=PLAIN',
      `listener.name.sasl_ssl.plain.sasl.jaas.config=${plain} required username="broker" password="${PASSWORD}" user_broker="${PASSWORD}" user_iot="${PASSWORD}";`,
      `listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=${scram} required;`,
      `listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=${scram} required;`,
      'ssl.keystore.type=PEM',
      `ssl.keystore.location=${pem('keystore')}`,
      'ssl.truststore.type=PEM',
      `ssl.truststore.location=${pem('ca')}`,
      'listener.name.sasl_ssl.ssl.client.auth=required', // without the prefix it does not count where there is SASL
    ],
    format: ['256', '512'].flatMap((bits) => ['--add-scram', `SCRAM-SHA-${bits}=[name=iot,password=${PASSWORD}]`]),
    isUp: isTlsUp,
  }
  const redis = (port: number) => [
    ...['--port', '0', '--tls-port', String(port), '--tls-auth-clients', 'no'],
    ...['--tls-cert-file', pem('server'), '--tls-key-file', key('server'), '--tls-ca-cert-file', pem('ca')],
    ...['--maxmemory', '1gb'], // as Compose has it: without a limit there is a warning more
    ...['--user', 'default', 'off', '--user', 'iot', 'on', `>${PASSWORD}`, '~*', '&*', '+@all'],
  ]
  return assemble(
    {
      kafka: async (port) => [await startKafka(port, data, { properties: kafka.properties, access: kafka })],
      redis: (port) => startRedis(port, data, redis(port), isTlsUp),
      mosquitto: (port) => startMosquitto(port, data, mosquitto, isTlsUp),
    },
    () => {},
  )
}

let cluster: Cluster
let platform: Platform
let wsPort: number
let proxies: Record<'mqtt' | 'kafka' | 'redis', TcpProxy>
let impostor: TlsServer
let impostorPort: number
let env: NodeJS.ProcessEnv

/** The servers themselves behind the proxies again. */
const direct = () => {
  proxies.mqtt.target = cluster.mosquitto.port
  proxies.kafka.target = cluster.kafka.port
  proxies.redis.target = cluster.redis.port
}

beforeAll(async () => {
  certify('ca')
  certify('other-ca')
  certify('server', 'ca')
  certify('client', 'ca')
  certify('impostor', 'other-ca')
  wsPort = await claimPort()
  cluster = await startSecured(wsPort)
  proxies = { mqtt: await createProxy(), kafka: await createProxy(), redis: await createProxy() }
  direct()
  impostor = createServer({ key: text(key('impostor')), cert: text(pem('impostor')) })
  impostor.on('tlsClientError', () => {})
  await new Promise<void>((resolve) => impostor.listen(0, '127.0.0.1', resolve))
  impostorPort = (impostor.address() as { port: number }).port

  const secret = join(dir, 'password')
  writeFileSync(secret, `${PASSWORD}\n`)
  const [ca, cert, own] = [text(pem('ca')), text(pem('client')), text(key('client'))]
  env = {
    MQTT_URL: `mqtts://127.0.0.1:${proxies.mqtt.port}`,
    MQTT_USERNAME: 'bridge',
    MQTT_PASSWORD: PASSWORD,
    MQTT_CA_FILE: pem('ca'),
    MQTT_CERT_FILE: pem('client'),
    MQTT_KEY_FILE: key('client'),
    KAFKA_TLS: 'true',
    KAFKA_CA_FILE: pem('ca'),
    KAFKA_CERT_FILE: pem('client'),
    KAFKA_KEY_FILE: key('client'),
    KAFKA_SASL_MECHANISM: 'plain',
    KAFKA_USERNAME: 'iot',
    KAFKA_PASSWORD: PASSWORD,
    REDIS_URL: `rediss://127.0.0.1:${proxies.redis.port}`,
    REDIS_USERNAME: 'iot',
    REDIS_PASSWORD_FILE: secret,
    REDIS_CA_FILE: pem('ca'),
    LOG_LEVEL: 'debug',
  }
  platform = await createPlatform(
    { mqtt: proxies.mqtt.port, kafka: proxies.kafka.port, redis: proxies.redis.port },
    {
      env,
      kafka: { ssl: { ca, cert, key: own }, sasl: { mechanism: 'plain', username: 'iot', password: PASSWORD } },
      redis: { username: 'iot', password: PASSWORD, tls: { ca } },
      mqtt: { username: 'bridge', password: PASSWORD, ca, cert, key: own },
    },
  )
})
afterEach(async () => {
  await Promise.all([platform.bridge.kill(), platform.consumer.kill()])
  direct()
})
afterAll(async () => {
  await platform?.down()
  await cluster?.stop()
  await Promise.all(Object.values(proxies ?? {}).map((proxy) => proxy.close()))
  impostor?.close()
  rmSync(dir, { recursive: true, force: true })
})

const isNotReady = async (url: string) => (await fetch(`${url}/health/ready`)).status === 503
const expectNoSecret = (log: string) => {
  for (const secret of [PASSWORD, WRONG, 'PRIVATE KEY']) expect(log).not.toContain(secret)
}

const started = new Set<string>()
/** Starts a service and answers what it has logged since, and the warnings in it that `pattern` fits. */
async function start(name: 'bridge' | 'consumer', extra: NodeJS.ProcessEnv = {}) {
  const service = platform[name]
  const before = started.has(name) ? service.log().length : 0
  started.add(name)
  await service.start(extra)
  const said = () => service.log().slice(before)
  const warnings = (pattern: RegExp) =>
    said()
      .split('\n')
      .filter((line) => /"level":(40|50)/.test(line) && pattern.test(line))
  return { service, said, warnings }
}

describe('a reading flows through three hops', () => {
  test.each([
    ['mqtts, SASL PLAIN, a password from a file', () => ({})],
    [
      'wss, SASL SCRAM-SHA-256',
      () => ({ MQTT_URL: `wss://127.0.0.1:${wsPort}`, KAFKA_SASL_MECHANISM: 'scram-sha-256' }),
    ],
    [
      'user names and passwords in the URLs, SASL SCRAM-SHA-512, REDIS_DURABILITY=fsync',
      () => ({
        MQTT_URL: `mqtts://bridge:${PASSWORD}@127.0.0.1:${cluster.mosquitto.port}`,
        MQTT_USERNAME: '',
        MQTT_PASSWORD: '',
        REDIS_URL: `rediss://iot:${PASSWORD}@127.0.0.1:${cluster.redis.port}`,
        REDIS_USERNAME: '',
        REDIS_PASSWORD_FILE: '',
        KAFKA_SASL_MECHANISM: 'scram-sha-512',
      }),
    ],
  ])('%s', async (name, extra) => {
    const { prefix, redis, bridge, consumer } = platform
    const id = platform.id(`secure-${name.length}`)
    await Promise.all([start('bridge', extra()), start('consumer', extra())])
    await Promise.all([bridge.ready(), consumer.ready()])
    const device = await platform.device()
    await device.publishAsync(`${prefix}/${id}/data`, '{"t":1.10}', { qos: 1 })
    const stored = async () => (await redis.hget(`device:last_state:${id}`, 'payload')) === '{"t":1.10}'
    await eventually(stored, () => `the reading: ${consumer.log()}`)
    expectNoSecret(bridge.log() + consumer.log())
  })
})

test('the dead letters are listed over such a connection too', async () => {
  const { prefix, topic, bridge } = platform
  await bridge.start()
  await bridge.ready()
  const device = await platform.device()
  await device.publishAsync(`${prefix}/empty/data`, '', { qos: 1 })
  await eventually(async () => (await platform.records(1, `${topic}-dlq`)).length === 1, 'the dead letter')
  const own = { PATH: process.env.PATH, ...env, KAFKA_BROKERS: `127.0.0.1:${proxies.kafka.port}`, KAFKA_TOPIC: topic }
  const { stdout } = await promisify(execFile)('node', [join(root, 'bridge', 'dist', 'dlq.js'), 'list'], { env: own })
  expect(stdout).toContain('empty_payload')
})

const UNTRUSTED = /self-signed certificate in certificate chain|unable to verify the first certificate|unable to get/
const none = { KAFKA_CERT_FILE: '', KAFKA_KEY_FILE: '' }
describe('refused: said once, alive, not ready, tries on', () => {
  test.each<['bridge' | 'consumer', 'mqtt' | 'kafka' | 'redis', string, NodeJS.ProcessEnv, RegExp]>([
    ['bridge', 'mqtt', 'a wrong password', { MQTT_PASSWORD: WRONG }, /Not authorized/],
    ['bridge', 'mqtt', 'no client certificate', { MQTT_CERT_FILE: '', MQTT_KEY_FILE: '' }, /certificate required/],
    ['bridge', 'kafka', 'a wrong password', { KAFKA_PASSWORD: WRONG }, /SASL PLAIN authentication failed/],
    ['bridge', 'kafka', 'no client certificate', none, /bad certificate/],
    ['consumer', 'kafka', 'a wrong password', { KAFKA_PASSWORD: WRONG }, /SASL PLAIN authentication failed/],
    [
      'consumer',
      'kafka',
      'a wrong password (SCRAM)',
      { KAFKA_PASSWORD: WRONG, KAFKA_SASL_MECHANISM: 'scram-sha-256' },
      /SASL SCRAM SHA256 authentication failed/,
    ],
    [
      'consumer',
      'redis',
      'a wrong password',
      { REDIS_PASSWORD: WRONG, REDIS_PASSWORD_FILE: '' },
      /WRONGPASS invalid username-password pair/,
    ],
    ['consumer', 'redis', 'no password', { REDIS_USERNAME: '', REDIS_PASSWORD_FILE: '' }, /NOAUTH/],
  ])('%s, %s: %s', async (name, hop, _what, extra, line) => {
    const { service, said, warnings } = await start(name, extra)
    await eventually(
      () => warnings(line).length > 0,
      () => `the refusal: ${said()}`,
    )
    const tries = proxies[hop].connections
    await eventually(
      () => proxies[hop].connections >= tries + 6,
      () => `tries on: ${said()}`,
    )
    expect(await isNotReady(service.url)).toBe(true)
    expect((await fetch(`${service.url}/health/live`)).status).toBe(200)
    // one for each of the service's parts that speak to this server
    expect(warnings(/./).length, said()).toBeLessThanOrEqual(2)
    expectNoSecret(said() + (await (await fetch(`${service.url}/health/ready`)).text()))
    expect(await service.stop()).toBe(0)
  })
})

describe('a server whose certificate is not trusted gets nothing, and the true one is found after it', () => {
  test.each([
    ['bridge', 'mqtt'],
    ['bridge', 'kafka'],
    ['consumer', 'kafka'],
    ['consumer', 'redis'],
  ] as const)('%s, %s', async (name, hop) => {
    const heard: Buffer[] = []
    impostor.removeAllListeners('secureConnection')
    impostor.on('secureConnection', (socket) => {
      socket.on('data', (data: Buffer) => heard.push(data))
      socket.on('error', () => {})
    })
    proxies[hop].target = impostorPort
    const { service, said, warnings } = await start(name)
    await eventually(
      () => warnings(UNTRUSTED).length > 0,
      () => `the refusal: ${said()}`,
    )
    const tries = proxies[hop].connections
    await eventually(
      () => proxies[hop].connections >= tries + 6,
      () => `tries on: ${said()}`,
    )
    expect(await isNotReady(service.url)).toBe(true)
    expect(warnings(/./).length, said()).toBeLessThanOrEqual(2)
    expect(heard).toEqual([])
    direct()
    await service.ready()
    expectNoSecret(said())
  })
})

test('a password that the broker accepts later: ready without a restart', async () => {
  const { service, said, warnings } = await start('bridge', { MQTT_PASSWORD: WRONG })
  await eventually(
    () => warnings(/Not authorized/).length > 0,
    () => `the refusal: ${said()}`,
  )
  const change = async (password: string) => {
    await cluster.mosquitto.stop()
    setMqttPassword(password)
    await cluster.mosquitto.start()
  }
  await change(WRONG)
  try {
    await service.ready()
  } finally {
    await change(PASSWORD)
  }
})

test('a password that Redis accepts later: ready without a restart', async () => {
  const extra = { REDIS_PASSWORD: WRONG, REDIS_PASSWORD_FILE: '' }
  const { service, said, warnings } = await start('consumer', extra)
  await eventually(
    () => warnings(/WRONGPASS/).length > 0,
    () => `the refusal: ${said()}`,
  )
  await platform.redis.acl('SETUSER', 'iot', `>${WRONG}`)
  await service.ready()
})
