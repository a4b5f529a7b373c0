// Events of the feed as bytes: blocks of SSE, or lines of JSON. Pure. An update is made once, for all who read it.
import type { DeviceMessage } from '@iot/shared/contract'
import { onOneLine } from '@iot/shared/json-text'

export type Format = 'sse' | 'ndjson'

/** An update. There are many of them: what can be read from the block is not kept beside it. */
export type Frame = {
  partition: number
  offset: number
  deviceId: string
  /** The whole block of SSE; its data begin at `dataAt`. */
  sse: Buffer
  dataAt: number
}

const BEFORE_ID = 'id: '
const BEFORE_DATA = '\nevent: update\ndata: '
const END = '\n\n'

export const RETRY = Buffer.from('retry: 2000\n\n')

const idOf = ({ sse, dataAt }: Frame) => sse.toString('latin1', BEFORE_ID.length, dataAt - BEFORE_DATA.length)

/** The vector behind an update, as text. */
export function vectorAfter(frame: Frame): string {
  const id = idOf(frame)
  return id.slice(id.indexOf('~'))
}

/** @param after the vector behind it, as text; '' for none, where each client has its own */
export function createFrame(partition: number, offset: number, message: DeviceMessage, after: string): Frame {
  const before = `${BEFORE_ID}${partition}:${offset}${after}${BEFORE_DATA}` // ASCII
  const sse = Buffer.from(`${before}${onOneLine(message.text)}${END}`)
  return { partition, offset, deviceId: message.deviceId, sse, dataAt: before.length }
}

/** @param after another vector than its own, of whom it is for */
export function updateBytes(frame: Frame, format: Format, after?: string): Buffer {
  const { partition, offset, sse, dataAt } = frame
  if (format === 'sse' && after === undefined) return sse
  const id = after === undefined ? idOf(frame) : `${partition}:${offset}${after}`
  if (format === 'sse') return Buffer.concat([Buffer.from(BEFORE_ID + id), sse.subarray(dataAt - BEFORE_DATA.length)])
  const data = sse.subarray(dataAt, sse.length - END.length)
  return Buffer.concat([Buffer.from(`{"id":"${id}","event":"update","data":`), data, Buffer.from('}\n')])
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
