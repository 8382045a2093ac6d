import { messageOf } from '../../../../core/errors.ts'
import type { Postgres, Queryable } from '../../../../platform/postgres/postgres.ts'
import { STATE_TARGET_FOREIGN, STATE_TARGET_READ_ONLY } from '../../errors.ts'

/** What Z-Push's SqlStateMachine expects (backend/sqlstatemachine/sqlstatemachine.php:38-41), in PostgreSQL's words. */
const tables = `
CREATE TABLE settings (
  key_name varchar(50) PRIMARY KEY,
  key_value varchar(50) NOT NULL,
  created_at timestamp NOT NULL,
  updated_at timestamp NOT NULL
);
CREATE TABLE users (
  username varchar(50) NOT NULL,
  device_id varchar(50) NOT NULL,
  PRIMARY KEY (username, device_id)
);
CREATE TABLE states (
  id_state serial PRIMARY KEY,
  device_id varchar(50) NOT NULL,
  uuid varchar(50),
  state_type varchar(50),
  counter integer,
  state_data bytea,
  created_at timestamp NOT NULL,
  updated_at timestamp NOT NULL
);
CREATE UNIQUE INDEX idx_states_unique ON states (device_id, uuid, state_type, counter);
-- A NULL uuid is equal to no other, so the index above lets devicedata double; of two rows Z-Push reads any.
CREATE UNIQUE INDEX idx_states_without_uuid ON states (device_id, state_type, counter) WHERE uuid IS NULL;
`

const columns: Record<string, string[]> = {
  settings: ['key_name', 'key_value', 'created_at', 'updated_at'],
  users: ['username', 'device_id'],
  states: [
    'id_state',
    'device_id',
    'uuid',
    'state_type',
    'counter',
    'state_data',
    'created_at',
    'updated_at',
  ],
}

interface TableRow {
  schema: string
  name: string
  columns: string[]
}

/** All tables of the database, in all schemas: Z-Push counts them so (SSM:719) and fails when there are not three. */
async function listTables(database: Queryable): Promise<TableRow[]> {
  const { rows } = await database.query<TableRow & Record<string, unknown>>(
    `SELECT table_schema AS schema, table_name AS name,
            (SELECT array_agg(column_name::text ORDER BY ordinal_position) FROM information_schema.columns c
              WHERE c.table_schema = t.table_schema AND c.table_name = t.table_name) AS columns
       FROM information_schema.tables t
      WHERE table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2`,
  )
  return rows
}

export type TablesFound = 'none' | 'ours'

/**
 * @returns whether the database is empty or has exactly Z-Push's tables
 * @throws STATE_TARGET_FOREIGN naming what is there besides, or what is missing
 */
export async function findTables(database: Queryable, place: string): Promise<TablesFound> {
  const found = await listTables(database)
  if (found.length === 0) return 'none'
  const foreign = found.filter((table) => table.schema !== 'public' || !(table.name in columns))
  if (foreign.length > 0) {
    const names = foreign.slice(0, 5).map((table) => `${table.schema}.${table.name}`)
    const reason = `it has ${foreign.length} table(s) that are not Z-Push's (${names.join(', ')}). Z-Push works only with exactly its three tables in the whole database: give it a database of its own`
    throw STATE_TARGET_FOREIGN({ place, reason })
  }
  for (const [name, expected] of Object.entries(columns)) {
    const table = found.find((each) => each.name === name)
    const missing = expected.filter((column) => !table?.columns.includes(column))
    if (missing.length > 0) {
      throw STATE_TARGET_FOREIGN({ place, reason: `its table ${name} lacks ${missing.join(', ')}` })
    }
  }
  return 'ours'
}

export async function createTables(database: Postgres): Promise<void> {
  // Two that begin side by side: the later one finds the tables.
  await database.transaction(async (client) => {
    await client.query('SELECT pg_advisory_xact_lock(8, 1)')
    const { rows } = await client.query<{ present: boolean }>(
      `SELECT to_regclass('public.states') IS NOT NULL AS present`,
    )
    if (!rows[0]?.present) await client.query(tables)
  })
}

/** Tries a write that is rolled back, since rights, read-only servers and full tablespaces have many causes. */
export async function assertWritable(database: Postgres, place: string, found: TablesFound): Promise<void> {
  const undo = new Error('undo')
  const attempt = database.transaction(async (client) => {
    if (found === 'none') await client.query('CREATE TABLE public.baton_probe (x integer)')
    else await client.query(`DELETE FROM states WHERE device_id = ''`)
    throw undo
  })
  await attempt.catch((error: unknown) => {
    if (error === undo) return
    throw STATE_TARGET_READ_ONLY({ place, reason: messageOf(error) }, { cause: error })
  })
}

export async function dropTables(database: Postgres): Promise<void> {
  await database.query('DROP TABLE IF EXISTS states, users, settings')
}
