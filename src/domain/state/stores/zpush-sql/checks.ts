import { messageOf } from '../../../../core/errors.ts'
import type { Postgres, Queryable } from '../../../../platform/postgres/postgres.ts'
import { STATE_SOURCE_UNREADABLE, STATE_TARGET_FOREIGN, STATE_VERSION_UNSUPPORTED } from '../../errors.ts'
import { isZPushDevice, type StateKey } from '../../state-key.ts'
import { type Link, openVersion } from '../../store.ts'
import { adviceFor } from '../file/checks.ts'
import { assertWritable, findTables } from './tables.ts'

/** By our clock in UTC, as the rest; Z-Push compares a state's time only with itself. */
export const utcNow = `(now() AT TIME ZONE 'UTC')`

export const refuses = (item: { device: string; key: StateKey } | Link): string | undefined =>
  'key' in item ? refusesState(item) : refusesLink(item)

function refusesState({ device, key }: { device: string; key: StateKey }): string | undefined {
  if (!isZPushDevice(device)) return 'the device id is not one that Z-Push can address'
  if (device.length > 50) return 'the device id has more than 50 characters'
  if (key.uuid.length > 50) return 'the uuid has more than 50 characters'
  if (key.counter > 0x7fff_ffff) return 'counter-over-int32'
  return undefined
}

function refusesLink({ user, device }: Link): string | undefined {
  const text = user.toString()
  if (!Buffer.from(text).equals(user) || user.includes(0)) return 'latin1-user-name'
  // varchar(50) counts code points.
  if (Array.from(text).length > 50) return 'long-user-name'
  return device.length > 50 ? 'the device id has more than 50 characters' : undefined
}

export async function checkSource(
  database: Postgres,
  place: string,
  owner: string | undefined,
): Promise<void> {
  const found = await findTables(database, place).catch((error: unknown) => {
    throw STATE_SOURCE_UNREADABLE({ place, reason: messageOf(error) }, { cause: error })
  })
  if (found === 'none')
    throw STATE_SOURCE_UNREADABLE({ place, reason: 'it has none of the three tables of Z-Push' })
  const version = await readVersion(database)
  // Z-Push writes the version on its first use, so a database that was filled otherwise has none yet.
  if (version === undefined || version === openVersion || (owner !== undefined && version === owner)) return
  throw STATE_VERSION_UNSUPPORTED({ place, version, advice: adviceFor(version) })
}

export async function checkTarget(
  database: Postgres,
  place: string,
  owner: string | undefined,
): Promise<void> {
  const found = await findTables(database, place)
  await assertWritable(database, place, found)
  if (found === 'none') return
  const version = await readVersion(database)
  if (owner !== undefined && version === owner) return
  const { rows } = await database.query<{ full: boolean }>(
    'SELECT EXISTS (SELECT FROM states) OR EXISTS (SELECT FROM users) AS full',
  )
  if (!rows[0]?.full && (version === undefined || version === openVersion)) return
  const reason = version?.startsWith('baton:')
    ? `it belongs to the migration ${version.slice('baton:'.length)}`
    : 'its tables hold states already'
  throw STATE_TARGET_FOREIGN({ place, reason })
}
export async function readVersion(database: Queryable): Promise<string | undefined> {
  const { rows } = await database.query<{ key_value: string }>(
    `SELECT key_value FROM settings WHERE key_name = 'version'`,
  )
  return rows[0]?.key_value
}

export async function writeVersion(database: Queryable, version: string): Promise<void> {
  await database.query(
    `INSERT INTO settings (key_name, key_value, created_at, updated_at)
     VALUES ('version', $1, ${utcNow}, ${utcNow})
     ON CONFLICT (key_name) DO UPDATE SET key_value = excluded.key_value, updated_at = excluded.updated_at`,
    [version],
  )
}
