// Events of the feed as bytes: blocks of SSE, or lines of JSON. Pure. An update is made once, for all who read it.
import type { DeviceMessage } from '@iot/shared/contract'
import { onOneLine } from '@iot/shared/json-text'

export type Format = 'sse' | 'ndjson'

/** An update. `after` is the vector behind it, as text. */
export type Frame = {
  partition: number
  offset: number
  deviceId: string
  after: string
  /** The whole block of SSE; its data begin at `dataAt`. */
  sse: Buffer
  dataAt: number
}

const BEFORE_DATA = '\nevent: update\ndata: '
const END = '\n\n'

export const RETRY = Buffer.from('retry: 2000\n\n')

const idOf = ({ partition, offset }: Frame, after: string) => `${partition}:${offset}${after}`

export function createFrame(partition: number, offset: number, message: DeviceMessage, after: string): Frame {
  const before = `id: ${partition}:${offset}${after}${BEFORE_DATA}` // ASCII
  const sse = Buffer.from(`${before}${onOneLine(message.text)}${END}`)
  return { partition, offset, deviceId: message.deviceId, after, sse, dataAt: before.length }
}

/** @param after the vector behind it of whom it is for */
export function updateBytes(frame: Frame, format: Format, after: string): Buffer {
  const { sse, dataAt } = frame
  if (format === 'ndjson')
    return Buffer.concat([
      Buffer.from(`{"id":"${idOf(frame, after)}","event":"update","data":`),
      sse.subarray(dataAt, sse.length - END.length),
      Buffer.from('}\n'),
    ])
  if (after === frame.after) return sse
  return Buffer.concat([Buffer.from(`id: ${idOf(frame, after)}`), sse.subarray(dataAt - BEFORE_DATA.length)])
}

/**
 * Another event than an update.
 * @param data JSON on one line
 * @param id where a client goes on that has it; an event without one leaves that as it was
 */
export function eventBytes(format: Format, name: string, data: string, id?: string): Buffer {
  if (format === 'sse')
    return Buffer.from(`event: ${name}\n${id === undefined ? '' : `id: ${id}\n`}data: ${data}${END}`)
  return Buffer.from(`{${id === undefined ? '' : `"id":"${id}",`}"event":"${name}","data":${data}}\n`)
}

/** Moves a client's position and raises no event in a browser. */
export const heartbeatBytes = (format: Format, id: string): Buffer =>
  Buffer.from(format === 'sse' ? `id: ${id}${END}` : `{"id":"${id}","event":"heartbeat","data":null}\n`)
