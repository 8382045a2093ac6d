import { readdir, readFile } from 'node:fs/promises'
import pg from 'pg'
import { sha256 } from '../../core/digest.ts'
import { DATABASE_NOT_MIGRATED } from './errors.ts'
import type { Queryable } from './postgres.ts'

/** A numbered file of SQL, applied once and never changed afterwards. */
export interface Migration {
  /** For example `0001_jobs`. */
  name: string
  sql: string
}

const folder = new URL('./migrations/', import.meta.url)
/** Any number will do, as long as every release takes the same one. */
const lockKey = 0x6261_746f

export async function readMigrations(): Promise<Migration[]> {
  const files = (await readdir(folder)).filter((file) => file.endsWith('.sql')).sort()
  return Promise.all(
    files.map(async (file) => ({
      name: file.replace(/\.sql$/, ''),
      sql: await readFile(new URL(file, folder), 'utf8'),
    })),
  )
}

/**
 * Applies what is pending, all in one transaction under one lock, so that releases may run side by side
 * and one that dies half-way leaves nothing behind.
 *
 * @returns the names of what was applied now
 */
export async function migrate(url: string): Promise<string[]> {
  const client = new pg.Client({ connectionString: url, application_name: 'baton release' })
  await client.connect()
  try {
    await client.query('BEGIN')
    await client.query('SELECT pg_advisory_xact_lock($1)', [lockKey])
    await client.query(`CREATE TABLE IF NOT EXISTS migrations (
      name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())`)
    const applied: string[] = []
    for (const migration of await pendingMigrations(client)) {
      await client.query(migration.sql)
      await client.query('INSERT INTO migrations (name, sha256) VALUES ($1, $2)', [
        migration.name,
        sha256(migration.sql),
      ])
      applied.push(migration.name)
    }
    await client.query('COMMIT')
    return applied
  } finally {
    await client.end()
  }
}

/** What a release would apply. */
export async function pendingMigrations(database: Queryable): Promise<Migration[]> {
  const { rows: tables } = await database.query<{ present: boolean }>(
    `SELECT to_regclass('migrations') IS NOT NULL AS present`,
  )
  const all = await readMigrations()
  if (!tables[0]?.present) return all
  const { rows } = await database.query<{ name: string }>('SELECT name FROM migrations')
  const done = new Set(rows.map((row) => row.name))
  return all.filter((migration) => !done.has(migration.name))
}

/** @throws DATABASE_NOT_MIGRATED, so that a process says what is missing instead of failing on its first query */
export async function assertMigrated(database: Queryable): Promise<void> {
  const pending = await pendingMigrations(database)
  if (pending.length > 0) {
    throw DATABASE_NOT_MIGRATED({ pending: pending.map((migration) => migration.name).join(', ') })
  }
}
