import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { inject } from 'vitest'
import { createPostgres, type Postgres } from '../../src/platform/postgres/postgres.ts'
import { databaseUrl, dropDatabase, type TestDatabase } from './databases.ts'

export function connect(url: string, max = 8): Postgres {
  return createPostgres({ url, max, applicationName: 'baton test', onError: () => undefined })
}

/** A database without a single table, which is what Z-Push's three need. */
export async function emptyDatabase(): Promise<TestDatabase> {
  const name = `baton_test_${process.pid}_${randomBytes(4).toString('hex')}`
  const admin = new pg.Client({ connectionString: inject('postgresUrl') })
  await admin.connect()
  await admin.query(`CREATE DATABASE ${name} TEMPLATE template0`)
  await admin.end()
  return { url: databaseUrl(inject('postgresUrl'), name), drop: () => dropDatabase(name) }
}
