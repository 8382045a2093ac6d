import { createHash } from 'node:crypto'
import type { Client, Postgres, Queryable } from '../../../../platform/postgres/postgres.ts'
import { digestSql } from '../../digest-of.ts'
import { STATE_NOT_FOUND } from '../../errors.ts'
import { keyPath, keyText, parseType, type StateKey } from '../../state-key.ts'
import type { DeviceDigests, DeviceSum, Replacement, Snapshot, State, StateEntry } from '../../store.ts'

interface Listed extends StateEntry {
  id: number
}

interface RowOfState {
  device: string
  id: number
  xmin: string
  uuid: string | null
  type: string | null
  counter: number | null
  size: number
  micros: string
  sha256?: string
  [column: string]: unknown
}

const listSql = (more: string): string => `
  SELECT device_id AS device, id_state AS id, xmin::text AS xmin, uuid, state_type AS type, counter,
         coalesce(octet_length(state_data), 0) AS size,
         (extract(epoch FROM updated_at) * 1000000)::bigint AS micros${more}
    FROM states WHERE device_id = ANY($1) ORDER BY id_state`

/** Any two who write a device's states take turns, in one order for all. Waits; ends with the transaction. */
export async function lockDevices(client: Client, devices: string[]): Promise<void> {
  await client.query(
    `SELECT pg_advisory_xact_lock(turn) FROM (
       SELECT DISTINCT hashtextextended('state ' || device, 30) AS turn FROM unnest($1::text[]) AS device ORDER BY 1) turns`,
    [devices],
  )
}

function keyOf(row: RowOfState): StateKey | undefined {
  const type = row.type === null || row.type === '' ? '' : parseType(row.type)
  return type === undefined ? undefined : { type, uuid: row.uuid ?? '', counter: row.counter ?? 0 }
}

/** Of rows with the same key the newest, which is the last one. */
function newestOnly<T extends { key: StateKey }>(rows: T[]): T[] {
  return [...new Map(rows.map((row) => [keyText(row.key), row])).values()]
}

const fingerprintOf = (rows: RowOfState[]): string =>
  rows.length === 0
    ? ''
    : createHash('md5')
        .update(rows.map((row) => `${row.id}:${row.xmin}`).join(','))
        .digest('hex')

function entriesOf(rows: RowOfState[]): Listed[] {
  const entries = rows.flatMap((row): Listed[] => {
    const key = keyOf(row)
    return key ? [{ id: row.id, key, size: row.size, updatedAtMicros: Number(row.micros) }] : []
  })
  return newestOnly(entries)
}

export async function readRows(database: Queryable, device: string): Promise<Listed[]> {
  const { rows } = await database.query<RowOfState>(listSql(''), [[device]])
  return entriesOf(rows)
}

export async function snapshotRows(database: Postgres, device: string): Promise<Snapshot> {
  const { rows } = await database.query<RowOfState>(listSql(''), [[device]])
  const entries = entriesOf(rows)
  return { fingerprint: fingerprintOf(rows), entries, states: () => readStates(database, device, entries) }
}

/** Most bytes that one fetch brings. */
const fetchBytes = 4 * 1024 * 1024

async function* readStates(database: Postgres, device: string, entries: Listed[]): AsyncIterable<State> {
  for (const group of groupsOf(entries)) {
    const { rows } = await database.query<{ id: number; data: Buffer | null }>(
      'SELECT id_state AS id, state_data AS data FROM states WHERE id_state = ANY($1)',
      [group.map((entry) => entry.id)],
    )
    const found = new Map(rows.map((row) => [row.id, row.data ?? Buffer.alloc(0)]))
    for (const { id, key, updatedAtMicros } of group) {
      const bytes = found.get(id)
      if (!bytes) throw STATE_NOT_FOUND({ device, key: keyPath(key) })
      yield { key, bytes, updatedAtMicros }
    }
  }
}

/** Neighbours whose sizes add up to a fetch; a larger one goes alone. */
export function groupsOf<T extends { size: number }>(entries: T[]): T[][] {
  const groups: T[][] = []
  let bytes = Number.POSITIVE_INFINITY
  for (const entry of entries) {
    const group = groups.at(-1)
    if (group && group.length < 500 && bytes + entry.size <= fetchBytes) group.push(entry)
    else {
      groups.push([entry])
      bytes = 0
    }
    bytes += entry.size
  }
  return groups
}

/** The server hashes what it reads back from its tables, so the bytes need not travel. */
export async function digestRows(
  database: Queryable,
  devices: string[],
): Promise<Map<string, DeviceDigests>> {
  const { rows } = await database.query<RowOfState>(
    listSql(`, encode(sha256(coalesce(state_data, '')), 'hex') AS sha256`),
    [devices],
  )
  const byDevice = new Map<string, RowOfState[]>(devices.map((device) => [device, []]))
  for (const row of rows) byDevice.get(row.device)?.push(row)
  return new Map([...byDevice].map(([device, own]) => [device, digestsOf(own)]))
}

const sumSql = `
  SELECT device_id AS device, md5(string_agg(id_state || ':' || xmin, ',' ORDER BY id_state)) AS fingerprint,
         ${digestSql({
           type: 'state_type',
           uuid: 'uuid',
           counter: 'coalesce(counter, 0)',
           data: `coalesce(state_data, '')`,
         })} AS digest
    FROM states WHERE device_id = ANY($1) GROUP BY device_id`

/** Double rows count twice, so such a device does not seem equal: whoever compares looks closer then. */
export async function sumRows(database: Queryable, devices: string[]): Promise<Map<string, DeviceSum>> {
  const { rows } = await database.query<DeviceSum & { device: string }>(sumSql, [devices])
  return new Map(rows.map(({ device, fingerprint, digest }) => [device, { fingerprint, digest }]))
}

function digestsOf(rows: RowOfState[]): DeviceDigests {
  const digests = rows.flatMap((row) => {
    const key = keyOf(row)
    return key ? [{ key, size: row.size, sha256: row.sha256 ?? '' }] : []
  })
  return { fingerprint: fingerprintOf(rows), digests: newestOnly(digests) }
}

export async function removeRows(client: Client, devices: Replacement[]): Promise<void> {
  const all = devices.filter(({ keep }) => keep.size === 0).map(({ device }) => device)
  if (all.length > 0) await client.query('DELETE FROM states WHERE device_id = ANY($1)', [all])
  for (const { device, keep } of devices) {
    if (keep.size === 0) continue
    const { rows } = await client.query<RowOfState>(listSql(''), [[device]])
    const doomed = rows.filter((row) => {
      const key = keyOf(row)
      return key && !keep.has(keyText(key))
    })
    await client.query('DELETE FROM states WHERE id_state = ANY($1)', [doomed.map((row) => row.id)])
  }
}
