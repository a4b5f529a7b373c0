// Makes sure of the programs that the local servers need: installed as root on Debian, else named with the command.
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'

const PROGRAMS = [
  { program: 'redis-server', apt: 'redis-server', brew: 'redis' },
  { program: 'mosquitto', apt: 'mosquitto', brew: 'mosquitto' },
  { program: 'mosquitto_pub', apt: 'mosquitto-clients', brew: 'mosquitto' }, // for the lines to try
  { program: 'java', apt: 'default-jre-headless', brew: 'openjdk@17' },
  { program: 'mvn', apt: 'maven', brew: 'maven' },
]

/** What Node is given for bridge and consumer: messages on their way die young, if the young generation has room. */
export const NODE_FLAGS = ['--max-semi-space-size=64']

export const root = join(import.meta.dirname, '..', '..')
export const kafkaLib = join(root, '.local', 'kafka', 'lib')

type Program = (typeof PROGRAMS)[number]
const missing = (wanted: Program[]) =>
  wanted.filter(({ program }) => spawnSync('sh', ['-c', `command -v ${program}`]).status !== 0)

/**
 * Makes sure of programs: installs what is missing as root on Debian, else names it.
 * @throws {Error} with the exact command to run where it cannot install by itself
 */
export function ensurePrograms(wanted: Program[], say: (line: string) => void): void {
  process.env.PATH = `${process.env.PATH}:/usr/sbin:/usr/local/sbin`
  const lacking = missing(wanted)
  if (lacking.length > 0) install(lacking, say)
}

/** Makes sure of what the servers need, and fetches Kafka's jars once. @throws as `ensurePrograms` */
export function prepare(say: (line: string) => void): void {
  ensurePrograms(PROGRAMS, say)
  if (existsSync(kafkaLib)) return
  say('fetching Apache Kafka with Maven (54 MB, once) ...')
  const partial = join(root, '.local', 'kafka', `lib-${process.pid}`)
  mkdirSync(partial, { recursive: true })
  const pom = join(root, 'stack', 'kafka', 'pom.xml')
  const args = [
    '-q',
    '-B',
    '-f',
    pom,
    'dependency:copy-dependencies',
    `-DoutputDirectory=${partial}`,
    '-DincludeScope=runtime',
  ]
  try {
    execFileSync('mvn', args, { stdio: ['ignore', 'ignore', 'inherit'] })
    renameSync(partial, kafkaLib)
  } finally {
    rmSync(partial, { recursive: true, force: true })
  }
}

function install(lacking: Program[], say: (line: string) => void): void {
  const names = lacking.map(({ apt }) => apt)
  if (process.getuid?.() === 0 && existsSync('/usr/bin/apt-get')) {
    say(`installing ${names.join(', ')} with apt-get ...`)
    // RUNLEVEL=1 keeps the packages from starting services of their own on our ports
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' }
    for (const args of [['update'], ['install', '-y', ...names]]) {
      const { status, stderr } = spawnSync('apt-get', ['-qq', ...args], { encoding: 'utf8', env })
      if (status !== 0) say(stderr)
    }
    if (missing(lacking).length === 0) return
  }
  const command =
    process.platform === 'darwin'
      ? `brew install ${[...new Set(lacking.map(({ brew }) => brew))].join(' ')}`
      : `sudo apt-get install ${names.join(' ')}`
  throw new Error(`missing: ${lacking.map(({ program }) => program).join(', ')}. Install with: ${command}`)
}
