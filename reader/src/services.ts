// Asks other services of the platform over HTTP. The path goes out as it is given: nothing in it is read or resolved.
import {
  type ClientRequest,
  Agent as HttpAgent,
  request as httpRequest,
  type IncomingHttpHeaders,
  type IncomingMessage,
} from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'

export type Ask = {
  method?: string
  /** From its first slash on, with the query. */
  path: string
  headers?: IncomingHttpHeaders
  body?: string | undefined
  /** Until the answer's head is there, and between any two of its bytes. */
  timeoutMs: number
}

const agents = { 'http:': new HttpAgent({ keepAlive: true }), 'https:': new HttpsAgent({ keepAlive: true }) }

/** @throws when it does not answer in time. @param base such as `http://127.0.0.1:8000` */
export function ask(base: string, { path, body, timeoutMs, ...options }: Ask): Promise<IncomingMessage> {
  const { protocol, pathname } = new URL(base)
  const isSecure = protocol === 'https:'
  const send = isSecure ? httpsRequest : httpRequest
  return new Promise((resolve, reject) => {
    const agent = agents[isSecure ? 'https:' : 'http:']
    const request: ClientRequest = send(base, { ...options, agent, path: pathname.replace(/\/$/, '') + path })
    request.setTimeout(timeoutMs, () => request.destroy(new Error(`no answer within ${timeoutMs / 1000} s`)))
    request.once('error', reject).once('response', resolve).end(body)
  })
}

/** The text of an answer. @throws when it breaks off */
export async function textOf(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of response) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString()
}
