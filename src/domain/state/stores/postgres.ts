import { sha256 } from '../../../core/digest.ts'
import { copyIn } from '../../../platform/postgres/copy-in.ts'
import type { Client, Postgres, Queryable } from '../../../platform/postgres/postgres.ts'
import { STATE_CHANGED } from '../errors.ts'
import { keyPath, type StateKey } from '../state-key.ts'
import {
  type Link,
  type MovableStore,
  openVersion,
  type Replacement,
  type State,
  type StateStore,
} from '../store.ts'
import { encodeRows, type Field } from './copy-rows.ts'
import { check, readActivity, readVersion, writeVersion } from './postgres/checks.ts'
import { digestRows, listRows, snapshotRows, sumRows } from './postgres/moves.ts'
import { bucketSql, surveyRows } from './sql-survey.ts'

export interface PostgresStoreOptions {
  database: Postgres
  place: string
}

const linksJson = (links: Link[]): string =>
  JSON.stringify(links.map(({ user, device }) => ({ user_name: user.toString('hex'), device })))

const isState = 'device = $1 AND uuid = $2 AND type = $3'
const micros = '(extract(epoch FROM updated_at) * 1000000)::bigint AS micros'
const columnsOf = (device: string, key: StateKey): unknown[] => [device, key.uuid, key.type, key.counter]

/**
 * Baton's own store, in the tables of migration 0030. Its states are any bytes: nothing is known of their format.
 * Every write goes through `touch`, which is where a change log is to be written, too.
 */
export function createPostgresStore(options: PostgresStoreOptions): MovableStore {
  const { database, place } = options

  return {
    kind: 'postgres',
    place,
    serialized: false,
    ...createRows(database),
    ...createLinks(database),
    version: () => readVersion(database),
    setVersion: (version) => writeVersion(database, version),
    close: () => database.close(),
    refuses: () => undefined,
    check: (role, owner) => check(database, place, role, owner),
    prepare: (version) => writeVersion(database, version),
    survey: (_known, signal) => surveyRows(database, surveySql, signal),
    snapshot: (device) => snapshotRows(database, device),
    replace: (devices) =>
      database.transaction(async (client) => {
        const versions = await touch(
          client,
          devices.map((each) => each.device),
        )
        for (const { device, keep } of devices) await client.query(removeSql, [device, [...keep]])
        // The device's row stays even without states: a version that began anew could repeat an old fingerprint.
        await copyIn(client, copySql, encodeRows(rowsOf(devices, versions)))
      }),
    digests: (devices) => digestRows(database, devices),
    sums: (devices) => sumRows(database, devices),
    readStray: () => undefined,
    activity: () => readActivity(database),
    admit: async (parts) => void (await database.query('UPDATE state_gate SET admitted = $1', [parts])),
    dismantle: () => writeVersion(database, openVersion),
  }
}

function createRows(database: Postgres): Pick<StateStore, 'get' | 'hash' | 'set' | 'clean' | 'list'> {
  const clean = (device: string, key: StateKey, only: boolean, ifMatch?: string): Promise<number> =>
    database.transaction(async (client) => {
      await touch(client, [device])
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
    set: (device, key, bytes, { ifMatch } = {}) =>
      database.transaction(async (client) => {
        const version = (await touch(client, [device])).get(device) ?? '1'
        if (ifMatch !== undefined) await assertSame(client, device, key, ifMatch)
        await client.query(
          `INSERT INTO states (device, uuid, type, counter, data, sha256, version, updated_at)
           VALUES ($1, $2, $3, $4, $5, decode($6, 'hex'), $7, now())
           ON CONFLICT (device, uuid, type, counter) DO UPDATE
             SET data = excluded.data, sha256 = excluded.sha256, version = excluded.version, updated_at = now()`,
          [...columnsOf(device, key), bytes, sha256(bytes), version],
        )
      }),
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
        `DELETE FROM state_links s USING json_to_recordset($1) AS l (user_name text, device text)
          WHERE s.user_name = decode(l.user_name, 'hex') AND s.device = l.device`,
        [linksJson(change.remove)],
      )
      const added = await client.query(
        `INSERT INTO state_links (user_name, device)
         SELECT decode(l->>'user_name', 'hex'), l->>'device'
           FROM json_array_elements($1) WITH ORDINALITY AS e (l, number) ORDER BY number
         ON CONFLICT DO NOTHING`,
        [linksJson(change.add)],
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

/** Takes the devices' turns, in one order for all, and counts their versions up. @returns the new versions */
export async function touch(client: Queryable, devices: string[]): Promise<Map<string, string>> {
  const { rows } = await client.query<{ device: string; version: string }>(
    `INSERT INTO state_devices (device) SELECT device FROM unnest($1::text[]) AS device ORDER BY device COLLATE "C"
     ON CONFLICT (device) DO UPDATE SET version = state_devices.version + 1, changed_at = now()
     RETURNING device, version`,
    [devices],
  )
  return new Map(rows.map((row) => [row.device, row.version]))
}

const surveySql = `
  SELECT device, version::text AS fingerprint, ${bucketSql('device')} AS bucket
    FROM state_devices d WHERE EXISTS (SELECT FROM states s WHERE s.device = d.device)
   ORDER BY (${bucketSql('device')}) COLLATE "C", device`

/** Keys are spelled as keyText does. */
const removeSql = `DELETE FROM states WHERE device = $1
  AND NOT coalesce(nullif(type, ''), 'def') || ' ' || coalesce(nullif(uuid, ''), '-') || ' ' || counter = ANY($2)`

const copySql =
  'COPY states (device, uuid, type, counter, data, sha256, version, updated_at) FROM STDIN (FORMAT binary)'

async function* rowsOf(devices: Replacement[], versions: Map<string, string>): AsyncIterable<Field[]> {
  for (const { device, fill } of devices) {
    const version = Number(versions.get(device) ?? 1)
    for await (const { key, bytes, updatedAtMicros } of fill()) {
      yield [
        { type: 'text', value: device },
        { type: 'text', value: key.uuid },
        { type: 'text', value: key.type },
        { type: 'int8', value: key.counter },
        { type: 'bytes', value: bytes },
        { type: 'bytes', value: Buffer.from(sha256(bytes), 'hex') },
        { type: 'int8', value: version },
        { type: 'instant', value: updatedAtMicros },
      ]
    }
  }
}

async function readState(database: Queryable, device: string, key: StateKey): Promise<State | undefined> {
  const { rows } = await database.query<{ data: Buffer; micros: string }>({
    name: 'state-get',
    text: `SELECT data, ${micros} FROM states WHERE ${isState} AND counter = $4`,
    values: columnsOf(device, key),
  })
  const row = rows[0]
  return row && { key, bytes: row.data, updatedAtMicros: Number(row.micros) }
}

async function hashState(database: Queryable, device: string, key: StateKey): Promise<string | undefined> {
  const { rows } = await database.query<{ hash: string }>(
    `SELECT encode(sha256, 'hex') AS hash FROM states WHERE ${isState} AND counter = $4`,
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

async function* listDevices(database: Queryable, user?: Buffer): AsyncIterable<string> {
  const { rows } = user
    ? await database.query<{ device: string }>(
        'SELECT device FROM state_links WHERE user_name = $1 ORDER BY id',
        [user],
      )
    : await database.query<{ device: string }>('SELECT DISTINCT device FROM states ORDER BY 1')
  for (const row of rows) yield row.device
}

async function* listLinks(database: Queryable): AsyncIterable<Link> {
  const { rows } = await database.query<{ user_name: Buffer; device: string }>(
    'SELECT user_name, device FROM state_links ORDER BY id',
  )
  for (const row of rows) yield { user: row.user_name, device: row.device }
}
