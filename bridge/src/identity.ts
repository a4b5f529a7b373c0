// The names by which the bridge is known to the broker: created once and kept in DATA_DIR, so that they are the same
// after a restart. Whoever knows a client id can take its session over, so none of the names tells another one.
import { randomBytes } from 'node:crypto'
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe } from '@iot/shared/errors'
import type { Logger } from 'pino'
import { z } from 'zod'

const CLIENT_ID_FILE = 'mqtt-client-id'
const NAMES_FILE = 'mqtt-names.json'
const OWNER_ONLY = 0o600

export type Identity = {
  clientId: string
  controlClientId: string
  /** Topics on which each connection proves that messages arrive. */
  canaryTopic: string
  controlCanaryTopic: string
}

const namesSchema = z.object({
  canaryTopic: z.string().min(1),
  controlCanaryTopic: z.string().min(1),
  controlClientId: z.string().min(1),
  /** The id that the bridge was last started with. */
  lastClientId: z.string().optional(),
})
type Names = z.output<typeof namesSchema>

const random = () => randomBytes(16).toString('hex')
const newNames = (): Names => ({
  canaryTopic: `canary/${random()}`,
  controlCanaryTopic: `canary/${random()}`,
  controlClientId: `iot-bridge-${random()}`,
})

/**
 * The names kept in `dir`, created where they are missing. A configured client id has a control connection whose id
 * follows from it, so that a broker's access rules can name both.
 * @throws where no client id is configured and `dir` cannot be written: the session would be another one each time
 */
export function loadIdentity(dir: string, configuredId: string | undefined, logger: Logger): Identity {
  const clientId = configuredId ?? keptClientId(dir)
  const names = keptNames(dir, clientId, logger)
  const { canaryTopic, controlCanaryTopic } = names
  const controlClientId = configuredId === undefined ? names.controlClientId : `${configuredId}-control`
  return { clientId, controlClientId, canaryTopic, controlCanaryTopic }
}

function keptClientId(dir: string): string {
  const kept = read(join(dir, CLIENT_ID_FILE))?.trim()
  if (kept) {
    restrict(join(dir, CLIENT_ID_FILE))
    return kept
  }
  const created = `iot-bridge-${randomBytes(8).toString('hex')}`
  write(dir, CLIENT_ID_FILE, `${created}\n`)
  return created
}

function keptNames(dir: string, clientId: string, logger: Logger): Names {
  let names = newNames()
  try {
    const kept = namesSchema.safeParse(parse(read(join(dir, NAMES_FILE))))
    if (kept.success) names = kept.data
    const { lastClientId } = names
    if (lastClientId !== undefined && lastClientId !== clientId) {
      logger.warn(
        { lastClientId, clientId },
        'the MQTT client id has changed: the broker keeps queueing for the session of the last one. To store what it ' +
          'holds, start the bridge once more with MQTT_CLIENT_ID set to it; to discard it, connect once with that id ' +
          'and a clean session (mosquitto_sub -i ID -t none -E)',
      )
    }
    if (!kept.success || lastClientId !== clientId) {
      write(dir, NAMES_FILE, `${JSON.stringify({ ...names, lastClientId: clientId }, null, 2)}\n`)
    }
  } catch (error) {
    logger.warn({ dir, error: describe(error) }, 'DATA_DIR cannot be used: the canary topics are new at each start')
  }
  return names
}

const parse = (text: string | undefined): unknown => {
  try {
    return JSON.parse(text ?? '')
  } catch {
    return undefined
  }
}

const read = (path: string): string | undefined => {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    return undefined
  }
}

function write(dir: string, name: string, text: string) {
  mkdirSync(dir, { recursive: true })
  writeFileSync(join(dir, name), text, { mode: OWNER_ONLY }) // the mode is that of a new file
  restrict(join(dir, name))
}

function restrict(path: string) {
  try {
    chmodSync(path, OWNER_ONLY)
  } catch {
    // somebody else's file, or a read-only mount: what can be read can be used
  }
}
