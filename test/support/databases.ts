import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { inject } from 'vitest'
import { eventually } from './processes.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** Superuser's URL of the cluster that all tests share. */
    postgresUrl: string
    /** Name of the migrated database that test databases are cloned from. */
    postgresTemplate: string
    redisUrl: string
  }
}

export interface TestDatabase {
  readonly url: string
  /** Fails when somebody is still connected. Needs no call: the end of the file drops what is left. */
  drop(): Promise<void>
}

/** Databases of this process bear its pid, so that the leak check finds them without anybody's help. */
const ours = `baton_test_${process.pid}_`

/** A fresh, migrated database. One for a test file is usual, one for each test costs about 50 ms. */
export async function testDatabase(): Promise<TestDatabase> {
  const name = `${ours}${randomBytes(4).toString('hex')}`
  await withAdmin((admin) => admin.query(`CREATE DATABASE ${name} TEMPLATE ${inject('postgresTemplate')}`))
  return { url: databaseUrl(inject('postgresUrl'), name), drop: () => dropDatabase(name) }
}

export interface TestRedis {
  readonly url: string
  /** Begins every key of the test, so that tests can share the server. */
  readonly prefix: string
}

/** The shared Redis. A test that flushes it, or stops it, takes `startRedis()` instead. */
export async function testRedis(): Promise<TestRedis> {
  return { url: inject('redisUrl'), prefix: `t${process.pid}${randomBytes(4).toString('hex')}` }
}

/** Names of the databases that this process has made and not dropped. */
export async function leftDatabases(): Promise<string[]> {
  const { rows } = await withAdmin((admin) =>
    admin.query<{ datname: string }>('SELECT datname FROM pg_database WHERE starts_with(datname, $1)', [
      ours,
    ]),
  )
  return rows.map((row) => row.datname)
}

/** @throws naming who is still connected, after having dropped it all the same */
export async function dropDatabase(name: string, graceMs = 10_000): Promise<void> {
  await withAdmin(async (admin) => {
    try {
      // A connection that was closed takes a moment to disappear.
      await eventually(() => assertUnused(admin, name), { timeoutMs: graceMs })
    } finally {
      await admin.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`)
    }
  })
}

async function assertUnused(admin: pg.Client, name: string): Promise<void> {
  const { rows } = await admin.query<{ who: string }>(
    `SELECT format('%s (%s): %s', application_name, state, left(query, 80)) AS who
       FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend'`,
    [name],
  )
  if (rows.length === 0) return
  throw new Error(`connections left open:\n  ${rows.map((row) => row.who).join('\n  ')}`)
}

async function withAdmin<T>(work: (admin: pg.Client) => Promise<T>): Promise<T> {
  const admin = new pg.Client({
    connectionString: inject('postgresUrl'),
    application_name: 'baton test support',
  })
  await admin.connect()
  try {
    return await work(admin)
  } finally {
    await admin.end()
  }
}

export function databaseUrl(cluster: string, name: string): string {
  const url = new URL(cluster)
  url.pathname = `/${name}`
  return url.href
}
