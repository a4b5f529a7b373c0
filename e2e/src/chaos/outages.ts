// Outages that last: servers away for minutes under load, absent when the services start, out of disk.
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Cluster } from '@iot/stack/cluster'
import { root } from '@iot/stack/prepare'
import type { Server } from '@iot/stack/process'
import { eventually, type Platform } from '../platform.js'
import type { Cell } from './cell.js'
import { pause } from './faults.js'

const AWAY_MS = 180_000
const ABSENT_MS = 60_000
const DISK_FULL_MS = 60_000
const DISK_MB = 600 // each of Kafka's and Redis's, in memory

const parent = join(root, '.local', 'test')
const mounted: string[] = []

/** A folder in which a Kafka broker's and Redis's data are on small disks of their own (tmpfs; needs root). */
export function smallDisks(kafkaBrokers: number): string {
  mkdirSync(parent, { recursive: true })
  const dir = mkdtempSync(join(parent, 'disks-'))
  for (const name of [kafkaBrokers === 1 ? 'kafka' : 'kafka-1', 'redis']) {
    const at = join(dir, name)
    mkdirSync(at)
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK_MB}m`, 'tmpfs', at])
    mounted.push(at)
  }
  mounted.push(dir)
  return dir
}

export function unmountDisks(): void {
  const dir = mounted.pop()
  for (const at of mounted) execFileSync('umount', ['-l', at])
  if (dir) rmSync(dir, { recursive: true, force: true })
}

/** Fills a disk to its last byte; answers what empties it again. */
function fill(at: string | undefined): () => void {
  if (!at) throw new Error('no disk to fill')
  const file = join(at, 'ballast')
  try {
    for (;;) writeFileSync(file, Buffer.alloc(1 << 20), { flag: 'a' })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
  }
  return () => rmSync(file)
}

/** Needs the disks of `smallDisks`. */
export function outages({ bridge, consumer }: Platform, { kafka, brokers, redis, mosquitto }: Cluster): Cell[] {
  const servers = [kafka, redis, mosquitto]
  const away = (server: Server): Cell => ({
    name: `${server.name} away ${AWAY_MS / 1000} s`,
    async harm() {
      await server.stop()
      await pause(AWAY_MS)
      await server.start()
    },
  })
  return [
    away(kafka),
    away(redis),
    {
      name: `Redis's disk full ${DISK_FULL_MS / 1000} s`,
      async harm() {
        const empty = fill(mounted[1])
        await eventually(() => consumer.log().includes('MISCONF'), 'the consumer meets the full disk', DISK_FULL_MS)
        await pause(DISK_FULL_MS)
        empty()
      },
    },
    {
      name: `${brokers[0]?.name}'s disk full ${DISK_FULL_MS / 1000} s`,
      async harm() {
        const empty = fill(mounted[0])
        await pause(DISK_FULL_MS)
        empty()
        await brokers[0]?.stop() // it has given up its log directory, and comes back only with a new process
        await brokers[0]?.start()
      },
    },
    {
      name: `all servers absent for the first ${ABSENT_MS / 1000} s`,
      async prepare() {
        await Promise.all([bridge.stop(), consumer.stop()])
        await Promise.all(servers.map((server) => server.stop()))
        await Promise.all([bridge.start(), consumer.start()])
        await pause(ABSENT_MS)
        await Promise.all(servers.map((server) => server.start()))
      },
      async harm() {
        await Promise.all([bridge.ready(60_000), consumer.ready(60_000)])
      },
    },
  ]
}
