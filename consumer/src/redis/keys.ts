// The keys that are the consumer's own, besides the guards of the contract.
import { GUARD } from '@iot/shared/contract'

/** Written to learn whether Redis takes writes; covered by every ACL that covers the guards. */
export const PROBE_KEY = `${GUARD}probe`

/** WAITAOF waits for the writes of its own connection, and so for all before them: this is that write. */
export const FSYNC_KEY = 'iot-consumer:fsync'
