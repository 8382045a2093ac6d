import type { Postgres, Queryable } from '../../../../platform/postgres/postgres.ts'
import { digestSql } from '../../digest-of.ts'
import { STATE_NOT_FOUND } from '../../errors.ts'
import { keyPath, keyText, type StateKey } from '../../state-key.ts'
import type { DeviceDigests, DeviceSum, Snapshot, State, StateEntry } from '../../store.ts'
import { groupsOf } from '../zpush-sql/moves.ts'

const micros = '(extract(epoch FROM updated_at) * 1000000)::bigint AS micros'

interface ListedRow {
  uuid: string
  type: StateKey['type']
  counter: string
  size: number
  micros: string
  sha256?: string
  [column: string]: unknown
}

const keyOf = (row: ListedRow): StateKey => ({
  type: row.type,
  uuid: row.uuid,
  counter: Number(row.counter),
})

export async function listRows(database: Queryable, device: string): Promise<StateEntry[]> {
  const { rows } = await database.query<ListedRow>(
    `SELECT uuid, type, counter, octet_length(data) AS size, ${micros} FROM states WHERE device = $1
      ORDER BY uuid, type, counter`,
    [device],
  )
  return rows.map((row) => ({ key: keyOf(row), size: row.size, updatedAtMicros: Number(row.micros) }))
}

const fingerprintSql = `SELECT version::text AS version FROM state_devices WHERE device = $1`

/** '' when it has no states, whatever its version: an emptied device is as none to the other stores. */
async function fingerprintOf(database: Queryable, device: string): Promise<string> {
  const { rows } = await database.query<{ version: string }>(fingerprintSql, [device])
  return rows[0]?.version ?? ''
}

export async function snapshotRows(database: Postgres, device: string): Promise<Snapshot> {
  // The version first: a write in between makes the next look differ.
  const fingerprint = await fingerprintOf(database, device)
  const entries = await listRows(database, device)
  return {
    fingerprint: entries.length === 0 ? '' : fingerprint,
    entries,
    states: () => readStates(database, device, entries),
  }
}

async function* readStates(database: Postgres, device: string, entries: StateEntry[]): AsyncIterable<State> {
  for (const group of groupsOf(entries)) {
    const { rows } = await database.query<ListedRow & { data: Buffer }>(
      `SELECT uuid, type, counter, data FROM states
         JOIN unnest($2::text[], $3::text[], $4::bigint[]) AS wanted (uuid, type, counter) USING (uuid, type, counter)
        WHERE device = $1`,
      [
        device,
        group.map(({ key }) => key.uuid),
        group.map(({ key }) => key.type),
        group.map(({ key }) => key.counter),
      ],
    )
    const found = new Map(rows.map((row) => [keyText(keyOf(row)), row.data]))
    for (const { key, updatedAtMicros } of group) {
      const bytes = found.get(keyText(key))
      if (!bytes) throw STATE_NOT_FOUND({ device, key: keyPath(key) })
      yield { key, bytes, updatedAtMicros }
    }
  }
}

/** Of the data as they are read back, not the column that was written with them. */
export async function digestRows(
  database: Queryable,
  devices: string[],
): Promise<Map<string, DeviceDigests>> {
  const versions = await database.query<{ device: string; version: string }>(
    'SELECT device, version::text AS version FROM state_devices WHERE device = ANY($1)',
    [devices],
  )
  const { rows } = await database.query<ListedRow & { device: string }>(
    `SELECT device, uuid, type, counter, octet_length(data) AS size, encode(sha256(data), 'hex') AS sha256,
            '0' AS micros
       FROM states WHERE device = ANY($1)`,
    [devices],
  )
  const all = new Map<string, DeviceDigests>(
    devices.map((device) => [device, { fingerprint: '', digests: [] }]),
  )
  const known = new Map(versions.rows.map((row) => [row.device, row.version]))
  for (const row of rows) {
    const device = all.get(row.device)
    device?.digests.push({ key: keyOf(row), size: row.size, sha256: row.sha256 ?? '' })
    if (device) device.fingerprint = known.get(row.device) ?? ''
  }
  return all
}

const sumSql = `
  SELECT s.device, min(d.version)::text AS fingerprint,
         ${digestSql({ type: 's.type', uuid: 's.uuid', counter: 's.counter', data: 's.data' })} AS digest
    FROM states s JOIN state_devices d ON d.device = s.device WHERE s.device = ANY($1) GROUP BY s.device`

export async function sumRows(database: Queryable, devices: string[]): Promise<Map<string, DeviceSum>> {
  const { rows } = await database.query<DeviceSum & { device: string }>(sumSql, [devices])
  return new Map(rows.map(({ device, fingerprint, digest }) => [device, { fingerprint, digest }]))
}
