// Outages that last: servers away for minutes under load, absent when the services start, out of disk.
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Cluster } from '@iot/stack/cluster'
import { root } from '@iot/stack/prepare'
import { eventually, type Platform } from '../platform.js'
import { type Load, type Row, runCell } from './cell.js'

const AWAY_MS = 180_000
const ABSENT_MS = 60_000
const DISK_FULL_MS = 60_000
const DISK_MB = 600 // each of Kafka's and Redis's, in memory

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))
const parent = join(root, '.local', 'test')
const mounted: string[] = []

/** A folder in which Kafka's and Redis's data are on small disks of their own (tmpfs; needs root). */
export function smallDisks(): string {
  mkdirSync(parent, { recursive: true })
  const dir = mkdtempSync(join(parent, 'disks-'))
  for (const name of ['kafka', 'redis']) {
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

export async function outages(
  platform: Platform,
  cluster: Cluster,
  load: Load,
  say: (line: string) => void,
): Promise<Row[]> {
  const { bridge, consumer } = platform
  const { kafka, mosquitto } = cluster
  const rows: Row[] = []
  const cell = async (name: string, harm: () => Promise<unknown>, own: Partial<Load> = {}) => {
    const row = await runCell(platform, cluster, name, { ...load, ...own }, async () => {
      await harm()
      return []
    })
    rows.push(row)
    say(JSON.stringify(row))
  }

  for (const server of [kafka, cluster.redis]) {
    await cell(`${server.name} away ${AWAY_MS / 1000} s`, async () => {
      await server.stop()
      await pause(AWAY_MS)
      await server.start()
    })
  }

  await cell(`Redis's disk full ${DISK_FULL_MS / 1000} s`, async () => {
    const empty = fill(mounted[1])
    await eventually(() => consumer.log().includes('MISCONF'), 'the consumer meets the full disk', DISK_FULL_MS)
    await pause(DISK_FULL_MS)
    empty()
  })

  await cell(`Kafka's disk full ${DISK_FULL_MS / 1000} s`, async () => {
    const empty = fill(mounted[0])
    await pause(DISK_FULL_MS)
    empty()
    await kafka.stop() // it has given up its log directory, and comes back only with a new process
    await kafka.start()
  })

  await Promise.all([bridge.stop(), consumer.stop()])
  const servers = [kafka, cluster.redis, mosquitto]
  await Promise.all(servers.map((server) => server.stop()))
  await Promise.all([bridge.start(), consumer.start()])
  await pause(ABSENT_MS)
  await Promise.all(servers.map((server) => server.start()))
  await cell(`all servers absent for the first ${ABSENT_MS / 1000} s`, () =>
    Promise.all([bridge.ready(60_000), consumer.ready(60_000)]),
  )
  return rows
}
