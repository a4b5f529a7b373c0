// The keys that are the consumer's own, besides the guards of the contract. Pure.
import { GUARD, historyKey, lastStateKey } from '@iot/shared/contract'

/** Written to learn whether Redis takes writes; covered by every ACL that covers the guards. */
export const PROBE_KEY = `${GUARD}probe`

/** How many devices have a last state; there only with MAX_KNOWN_DEVICES. */
export const KNOWN_KEY = `${GUARD}devices`

/** What the keys of all guards match, and of all histories. */
export const GUARDS = `${GUARD}${lastStateKey('')}*`
export const HISTORIES = `${historyKey('')}*`

/** WAITAOF waits for the writes of its own connection, and so for all before them: this is that write. */
export const FSYNC_KEY = 'iot-consumer:fsync'
