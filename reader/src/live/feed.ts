// The clients of the feed: how many there may be, where each begins, when it is served, how it ends. What they share is
// looked up and made once; what a client does not take is not kept.
import type { OutgoingHttpHeaders, ServerResponse } from 'node:http'
import { describe } from '@iot/shared/errors'
import { Problem } from '@iot/shared/http/problem'
import { partitionOf } from '@iot/shared/kafka/partitioner'
import { withDeadline } from '@iot/shared/lifecycle'
import { createLimitedLog } from '@iot/shared/log-limit'
import { encodeVector, type RecordPosition, topicTag, type Vector } from '@iot/shared/positions'
import type { Logger } from 'pino'
import { Counter, Gauge } from 'prom-client'
import type { CatchUp } from './catch-up.js'
import type { Extras, Wishes } from './extras.js'
import { eventBytes, RETRY } from './frames.js'
import { locatePlace } from './place.js'
import { MAX_WHOLE_PARTITIONS } from './ring.js'
import { createStream, type Place, type Stream } from './stream.js'
import type { Tail } from './tail.js'

const TICK_MS = 50 // what comes within this time goes into one chunk
const SWEEP_MS = 1000
const HEARTBEAT_MS = 15_000
const STALL_MS = 30_000 // in which nothing is taken: whoever stops is closed after 30 to 60 s
const OPEN_MS = 5000
const CONTENT_TYPES = { sse: 'text/event-stream', ndjson: 'application/x-ndjson' }

const opened = new Gauge({ name: 'iot_live_streams', help: 'clients of the live feed' })
const parked = new Gauge({ name: 'iot_live_parked', help: 'clients of the live feed that take nothing at this moment' })
const closed = new Counter({
  name: 'iot_live_closed_total',
  help: 'clients of the live feed that are gone: they left, were done, took nothing (stalled), or the reader stopped',
  labelNames: ['reason'],
})
const updates = new Counter({ name: 'iot_live_updates_total', help: 'updates written to clients of the live feed' })
const sent = new Counter({ name: 'iot_live_sent_bytes_total', help: 'bytes written to clients of the live feed' })

/** Where a client begins: a vector that it was given, behind a record, a time in Unix milliseconds. */
export type From = Vector | RecordPosition | number | 'now' | 'earliest'

export type Request = Wishes & {
  address: string
  from: From
  /** The newest of each device in this time; 0 for every update. */
  everyMs: number
  /** When and after how many updates it ends; Infinity for never. */
  forMs: number
  count: number
}

export type Feed = {
  /**
   * Finds where a client begins; its place is kept until what is returned has been called, and then until it is gone.
   * @throws {Problem} TOO_MANY_STREAMS, KAFKA_UNAVAILABLE, INVALID_QUERY
   */
  open(request: Request): Promise<(response: ServerResponse, headers: OutgoingHttpHeaders) => void>
  /** There is something new. */
  wake(): void
  /** Serves a client that was handed something. */
  serve(stream: Stream): void
  start(): void
  /** Ends every stream; its client goes on where it was at another reader, or when this one is back. */
  stop(): void
}

export type FeedParts = {
  tail: Tail
  catchUp: () => CatchUp
  extras: Extras
  maxStreams: number
  maxOfAddress: number
  logger: Logger
}

const ENDS = ['left', 'done', 'stalled', 'stopped'] as const
type End = (typeof ENDS)[number]
for (const reason of ENDS) closed.inc({ reason }, 0) // a counter that begins with its first event hides that one

// longer than other functions: a few lines each, which share the clients
export function createFeed({ tail, catchUp, extras, maxStreams, maxOfAddress, logger }: FeedParts): Feed {
  const log = createLimitedLog(logger)
  const streams = new Map<Stream, (end: End) => void>()
  const ofAddress = new Map<string, number>()
  let seats = 0
  let tickedMs = 0
  let timer: NodeJS.Timeout | undefined
  let dueMs = Number.POSITIVE_INFINITY
  let sweeping: NodeJS.Timeout | undefined
  let isStopping = false

  const takeSeat = (address: string) => {
    const others = ofAddress.get(address) ?? 0
    if (isStopping) throw new Problem(503, 'TOO_MANY_STREAMS', 'The reader is stopping')
    if (seats >= maxStreams || others >= maxOfAddress)
      throw new Problem(503, 'TOO_MANY_STREAMS', `More than ${seats >= maxStreams ? maxStreams : maxOfAddress} streams`)
    seats++
    ofAddress.set(address, others + 1)
    return () => {
      seats--
      const left = (ofAddress.get(address) ?? 0) - 1
      if (left > 0) ofAddress.set(address, left)
      else ofAddress.delete(address)
    }
  }

  const schedule = (inMs: number) => {
    const wantedMs = performance.now() + inMs
    if (wantedMs >= dueMs || isStopping) return
    clearTimeout(timer)
    dueMs = wantedMs
    timer = setTimeout(tick, inMs)
  }
  const wake = () => schedule(Math.max(tickedMs + TICK_MS - performance.now(), 0))

  const serve = (stream: Stream) => {
    const nextMs = stream.pump(performance.now())
    if (stream.isBehind && !stream.isFull) catchUp().add(stream)
    if (nextMs < Number.POSITIVE_INFINITY) schedule(Math.max(nextMs - performance.now(), TICK_MS))
  }

  function tick() {
    dueMs = Number.POSITIVE_INFINITY
    tickedMs = performance.now()
    for (const stream of streams.keys()) serve(stream)
  }

  const sweep = () => {
    tick()
    const nowMs = performance.now()
    let full = 0
    for (const stream of streams.keys()) {
      if (stream.isFull) full++
      if (nowMs - stream.writtenMs >= HEARTBEAT_MS) stream.heartbeat(nowMs)
    }
    parked.set(full)
  }

  /** Of a topic of many partitions an id has those of the client's devices alone. */
  const narrow = async (place: Place, devices: readonly string[] | undefined, partitions: number): Promise<Place> => {
    if (partitions <= MAX_WHOLE_PARTITIONS) return place
    if (!devices) throw new Problem(400, 'INVALID_QUERY', `The topic has ${partitions} partitions: name devices`)
    const now = await tail.startsAt('now')
    const wanted = devices.map((id) => partitionOf(Buffer.from(id), partitions))
    return { ...place, next: new Map(wanted.map((one) => [one, place.next.get(one) ?? now.get(one) ?? 0])) }
  }

  const find = async ({ from, devices }: Request): Promise<Place> => {
    await tail.hold()
    const { generation } = tail.ring
    const { topic } = await tail.locate()
    const narrowed = (place: Place) => narrow(place, devices, topic.partitions.length)
    if (typeof from !== 'object') {
      const next = await tail.startsAt(from)
      return narrowed({ topic: topicTag(topic.id), next, gaps: [], generation })
    }
    if ('next' in from) return narrowed(await locatePlace(tail, from))
    const next = new Map(await tail.startsAt('now')).set(from.partition, from.offset + 1)
    return narrowed(await locatePlace(tail, { topic: '', next }))
  }

  const attach = (request: Request, place: Place, leave: () => void, response: ServerResponse) => {
    const { format, from } = request
    const { socket } = response
    let end: End = 'left'
    const finish = (reason: End) => {
      end = reason
      if (reason === 'stalled' || stream.isFull) response.destroy()
      else response.end()
      gone()
    }
    const gone = () => {
      if (!streams.delete(stream)) return
      clearTimeout(ending)
      catchUp().remove(stream)
      closed.inc({ reason: end })
      opened.set(streams.size)
      leave()
    }
    const stream = createStream(
      { ...request, isPartial: (tail.topic?.partitions.length ?? 0) > MAX_WHOLE_PARTITIONS },
      {
        ring: tail.ring,
        write(chunk, count) {
          sent.inc(chunk.length)
          updates.inc(count)
          return response.write(chunk)
        },
        extras: extras.begin(request),
        onDone: () => finish('done'),
      },
    )
    const ending = Number.isFinite(request.forMs) ? setTimeout(() => finish('done'), request.forMs) : undefined
    streams.set(stream, finish)
    opened.set(streams.size)
    response.on('drain', () => {
      stream.drained()
      if (streams.has(stream)) serve(stream)
    })
    response.on('close', gone).on('error', () => {})
    response.on('timeout', () => {
      if (!stream.isFull && !response.writableEnded) return void socket?.setTimeout(STALL_MS) // it is we who slept
      if (streams.has(stream)) log.warn('stalled', { address: request.address }, 'a client took nothing: closed')
      finish('stalled')
    })
    socket?.setTimeout(STALL_MS).setKeepAlive(true, STALL_MS)
    const id = encodeVector(place)
    const resumed = typeof from === 'object' && place.gaps.length === 0
    if (format === 'sse') response.write(RETRY)
    response.write(eventBytes(format, 'open', JSON.stringify({ position: id, resumed }), id))
    stream.place(place)
    serve(stream)
  }

  return {
    async open(request) {
      const leaveSeat = takeSeat(request.address)
      const leave = () => {
        leaveSeat()
        tail.release()
      }
      const place = await withDeadline(find(request), OPEN_MS).catch((error) => {
        leave()
        throw error instanceof Problem ? error : new Problem(503, 'KAFKA_UNAVAILABLE', `Kafka: ${describe(error)}`)
      })
      return (response, headers) => {
        if (response.destroyed || isStopping) {
          leave()
          response.destroy()
          return
        }
        response.writeHead(200, {
          ...headers,
          'content-type': CONTENT_TYPES[request.format],
          'cache-control': 'no-store',
          'x-accel-buffering': 'no',
        })
        attach(request, place, leave, response)
      }
    },
    wake,
    serve,
    start() {
      sweeping = setInterval(sweep, SWEEP_MS)
    },
    stop() {
      isStopping = true
      clearInterval(sweeping)
      clearTimeout(timer)
      for (const finish of [...streams.values()]) finish('stopped')
      extras.stop()
    },
  }
}
