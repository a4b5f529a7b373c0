// Who may call, and for what: whoever shows a key, or, where no keys are set, whoever calls us by a name that is ours.
import { createHash, timingSafeEqual } from 'node:crypto'
import { isIP } from 'node:net'
import { Problem } from './problem.js'

/** A key that only reads, and only of the devices whose ids begin so. */
export type ReadKey = { key: string; prefix: string }

export type AccessOptions = {
  /** The keys that callers may show for everything. Without these and read keys everybody may call. */
  keys: string[]
  readKeys: ReadKey[]
  /** The address that the server listens on. */
  host: string
  /** Further names that callers without keys may reach it by. */
  allowedHosts: string[]
}

type Headers = { host?: string | undefined; authorization?: string | undefined }

/** A caller: the name of the key that was shown, '' where no keys are set, and what it is good for. */
export type Caller = { name: string; mayWrite: boolean; prefix: string }

export type Access = {
  /** @throws {Problem} 421 where no keys are set and the caller uses a name that is not ours */
  checkHost(headers: Headers): void
  /** @throws {Problem} 401 without a known key */
  callerOf(headers: Headers): Caller
}

const EVERY_ADDRESS = ['0.0.0.0', '::']
const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|::1)$/

/** Of somebody who needs to show no key. */
export const ANYBODY: Caller = { name: '', mayWrite: true, prefix: '' }

const digest = (text: string) => createHash('sha256').update(text).digest()

export function createAccess({ keys, readKeys, host, allowedHosts }: AccessOptions): Access {
  const known = [
    ...keys.map((key) => ({ digest: digest(key), mayWrite: true, prefix: '' })),
    ...readKeys.map(({ key, prefix }) => ({ digest: digest(key), mayWrite: false, prefix })),
  ]
  const ours = new Set([host, ...allowedHosts].map((name) => name.toLowerCase()))

  // A page that a browser on this machine has open can reach us under a name of its own, which it lets point here (DNS
  // rebinding). No such name is an address, so those are ours where we listen on all of them.
  const isOurs = (name: string) =>
    LOOPBACK.test(name) || ours.has(name) || (EVERY_ADDRESS.includes(host) && isIP(name) !== 0)

  return {
    checkHost({ host: header = 'localhost' }) {
      if (known.length > 0) return
      const name = hostName(header) // as it was sent: X-Forwarded-Host is a header that a page may set
      if (isOurs(name)) return
      const words = `This API does not answer to ${JSON.stringify(name)}: give it in API_ALLOWED_HOSTS, or set API_KEY`
      throw new Problem(421, 'HOST_NOT_ALLOWED', words)
    },
    callerOf({ authorization = '' }) {
      if (known.length === 0) return ANYBODY
      const [, shown = ''] = /^Bearer +(\S+)$/i.exec(authorization) ?? []
      const shownDigest = digest(shown)
      // all of them are compared, each in constant time
      const [found] = known.filter((one) => timingSafeEqual(one.digest, shownDigest))
      if (found === undefined) throw new Problem(401, 'UNAUTHORIZED', 'Give a key: Authorization: Bearer KEY')
      const { digest: name, mayWrite, prefix } = found
      return { name: name.toString('base64'), mayWrite, prefix }
    },
  }
}

/** The name in a Host header, without its port and in lower case; `::1` of `[::1]:8000`. */
function hostName(header: string): string {
  const [, address, name] = /^(?:\[([^\]]*)\]|([^:]*))(?::\d*)?$/.exec(header.toLowerCase()) ?? []
  return address ?? name ?? ''
}
