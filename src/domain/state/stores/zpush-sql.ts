import { copyIn } from '../../../platform/postgres/copy-in.ts'
import type { Client, Postgres, Queryable } from '../../../platform/postgres/postgres.ts'
import { STATE_CHANGED, STATE_DEVICE_INVALID } from '../errors.ts'
import { keyPath, type StateKey } from '../state-key.ts'
import type { Link, MovableStore, Replacement, State, StateEntry, StateStore } from '../store.ts'
import { encodeRows, type Field } from './copy-rows.ts'
import { checkSource, checkTarget, readVersion, refuses, utcNow, writeVersion } from './zpush-sql/checks.ts'
import { digestRows, lockDevices, readRows, removeRows, snapshotRows, sumRows } from './zpush-sql/moves.ts'
import { readActivity, surveyTables } from './zpush-sql/survey.ts'
import { createTables, dropTables } from './zpush-sql/tables.ts'

export interface ZPushSqlStoreOptions {
  database: Postgres
  place: string
}

/** How Z-Push writes a missing uuid and an empty type (SSM: Set and Get). */
const columnsOf = (device: string, key: StateKey): unknown[] => [
  device,
  key.type,
  key.uuid === '' ? null : key.uuid,
  key.counter,
]

const columnsOfLinks = (links: Link[]): unknown[] => [
  links.map((link) => link.user.toString()),
  links.map((link) => link.device),
]

const isState = `device_id = $1 AND state_type = $2 AND uuid IS NOT DISTINCT FROM $3`
const micros = (column: string): string => `(extract(epoch FROM ${column}) * 1000000)::bigint`

/**
 * Z-Push's three tables in a PostgreSQL database of their own (backend/sqlstatemachine/sqlstatemachine.php). Where a
 * database made by hand let states without a uuid double, the newest row counts, and a write leaves one.
 */
export function createZPushSqlStore(options: ZPushSqlStoreOptions): MovableStore {
  const { database, place } = options

  return {
    kind: 'zpush-sql',
    place,
    serialized: true,
    ...createRows(database, place),
    ...createLinks(database),
    version: () => readVersion(database),
    setVersion: (version) => writeVersion(database, version),
    close: () => database.close(),
    refuses,
    check: (role, owner) =>
      role === 'source' ? checkSource(database, place, owner) : checkTarget(database, place, owner),
    prepare: async (version) => {
      await createTables(database)
      await writeVersion(database, version)
    },
    survey: (_known, signal) => surveyTables(database, signal),
    snapshot: (device) => snapshotRows(database, device),
    replace: (devices) =>
      database.transaction(async (client) => {
        await lockDevices(
          client,
          devices.map((each) => each.device),
        )
        await removeRows(client, devices)
        await copyIn(client, copySql, encodeRows(rowsOf(devices)))
      }),
    digests: (devices) => digestRows(database, devices),
    sums: (devices) => sumRows(database, devices),
    readStray: () => undefined,
    activity: () => readActivity(database),
    dismantle: () => dropTables(database),
  }
}

function createRows(
  database: Postgres,
  place: string,
): Pick<StateStore, 'get' | 'hash' | 'set' | 'clean' | 'list'> {
  const set = (device: string, key: StateKey, bytes: Buffer, ifMatch?: string): Promise<void> =>
    database.transaction(async (client) => {
      await lockDevices(client, [device])
      if (ifMatch !== undefined) await assertSame(client, device, key, ifMatch)
      const where = columnsOf(device, key)
      const { rowCount } = await client.query(
        `UPDATE states SET state_data = $5, updated_at = ${utcNow} WHERE id_state = (
           SELECT max(id_state) FROM states WHERE ${isState} AND counter = $4)`,
        [...where, bytes],
      )
      if (rowCount === 1) {
        await client.query(
          `DELETE FROM states WHERE ${isState} AND counter = $4 AND id_state < (
             SELECT max(id_state) FROM states WHERE ${isState} AND counter = $4)`,
          where,
        )
        return
      }
      await client.query(
        `INSERT INTO states (device_id, state_type, uuid, counter, state_data, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, ${utcNow}, ${utcNow})`,
        [...where, bytes],
      )
    })

  const clean = (device: string, key: StateKey, only: boolean, ifMatch?: string): Promise<number> =>
    database.transaction(async (client) => {
      await lockDevices(client, [device])
      if (ifMatch !== undefined) await assertSame(client, device, key, ifMatch)
      const compare = key.counter === 0 ? '>=' : only ? '=' : '<'
      const { rowCount } = await client.query(
        `DELETE FROM states WHERE ${isState} AND counter ${compare} $4`,
        columnsOf(device, key),
      )
      return rowCount ?? 0
    })

  return {
    get: async (device, key, { clean: cleanOlder = false } = {}) => {
      const state = await readState(database, device, key)
      if (state && cleanOlder && key.counter > 0) await clean(device, key, false)
      return state
    },
    hash: (device, key) => hashState(database, device, key),
    set: async (device, key, bytes, { ifMatch } = {}) => {
      const reason = refuses({ device, key })
      if (reason) throw STATE_DEVICE_INVALID({ device, place, reason })
      await set(device, key, bytes, ifMatch)
    },
    clean: (device, key, { only = false, ifMatch } = {}) => clean(device, key, only, ifMatch),
    list: (device) => listRows(database, device),
  }
}

function createLinks(
  database: Postgres,
): Pick<MovableStore, 'devices' | 'links' | 'link' | 'unlink' | 'applyLinks'> {
  const applyLinks = (change: { add: Link[]; remove: Link[] }): Promise<number> =>
    database.transaction(async (client) => {
      const removed = await client.query(
        `DELETE FROM users u USING unnest($1::text[], $2::text[]) AS l (username, device_id)
          WHERE u.username = l.username AND u.device_id = l.device_id`,
        columnsOfLinks(change.remove),
      )
      const added = await client.query(
        `INSERT INTO users (username, device_id)
         SELECT username, device_id FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS l (username, device_id, number)
          ORDER BY number ON CONFLICT DO NOTHING`,
        columnsOfLinks(change.add),
      )
      return (removed.rowCount ?? 0) + (added.rowCount ?? 0)
    })

  return {
    devices: (user) => listDevices(database, user),
    links: () => listLinks(database),
    link: async (user, device) => (await applyLinks({ add: [{ user, device }], remove: [] })) > 0,
    unlink: async (user, device) => (await applyLinks({ add: [], remove: [{ user, device }] })) > 0,
    applyLinks: async (change) => void (await applyLinks(change)),
  }
}

const copySql = `COPY states (device_id, uuid, state_type, counter, state_data, created_at, updated_at)
  FROM STDIN (FORMAT binary)`

async function* rowsOf(devices: Replacement[]): AsyncIterable<Field[]> {
  for (const { device, fill } of devices) {
    for await (const { key, bytes, updatedAtMicros } of fill()) {
      yield [
        { type: 'text', value: device },
        key.uuid === '' ? { type: 'null' } : { type: 'text', value: key.uuid },
        { type: 'text', value: key.type },
        { type: 'int4', value: key.counter },
        { type: 'bytes', value: bytes },
        { type: 'instant', value: updatedAtMicros },
        { type: 'instant', value: updatedAtMicros },
      ]
    }
  }
}

async function readState(database: Queryable, device: string, key: StateKey): Promise<State | undefined> {
  const { rows } = await database.query<{ data: Buffer | null; micros: string }>(
    `SELECT state_data AS data, ${micros('updated_at')} AS micros FROM states
      WHERE ${isState} AND counter = $4 ORDER BY id_state DESC LIMIT 1`,
    columnsOf(device, key),
  )
  const row = rows[0]
  return row && { key, bytes: row.data ?? Buffer.alloc(0), updatedAtMicros: Number(row.micros) }
}

async function hashState(database: Queryable, device: string, key: StateKey): Promise<string | undefined> {
  const { rows } = await database.query<{ hash: string }>(
    `SELECT encode(sha256(coalesce(state_data, '')), 'hex') AS hash FROM states
      WHERE ${isState} AND counter = $4 ORDER BY id_state DESC LIMIT 1`,
    columnsOf(device, key),
  )
  return rows[0]?.hash
}

async function assertSame(client: Client, device: string, key: StateKey, ifMatch: string): Promise<void> {
  const hash = await hashState(client, device, key)
  if (hash === undefined || (ifMatch !== '*' && hash !== ifMatch)) {
    throw STATE_CHANGED({ device, key: keyPath(key) })
  }
}

async function listRows(database: Queryable, device: string): Promise<StateEntry[]> {
  return (await readRows(database, device)).map(({ key, size, updatedAtMicros }) => ({
    key,
    size,
    updatedAtMicros,
  }))
}

async function* listDevices(database: Queryable, user?: Buffer): AsyncIterable<string> {
  const { rows } = user
    ? await database.query<{ device: string }>(
        'SELECT device_id AS device FROM users WHERE username = $1 ORDER BY ctid',
        [user.toString()],
      )
    : await database.query<{ device: string }>('SELECT DISTINCT device_id AS device FROM states ORDER BY 1')
  for (const row of rows) yield row.device
}

/** The tables keep no order; that of the rows on the disk is the order of linking until one is removed. */
async function* listLinks(database: Queryable): AsyncIterable<Link> {
  const { rows } = await database.query<{ username: string; device_id: string }>(
    'SELECT username, device_id FROM users ORDER BY ctid',
  )
  for (const row of rows) yield { user: Buffer.from(row.username), device: row.device_id }
}
