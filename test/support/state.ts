import { randomBytes, randomUUID } from 'node:crypto'
import pg from 'pg'
import { inject } from 'vitest'
import { createSystemClock } from '../../src/core/clock.ts'
import { type EngineOptions, runMigration } from '../../src/domain/state/migration/engine.ts'
import {
  defaultOptions,
  type Migration,
  type MigrationOptions,
  type Phase,
  type Wanted,
} from '../../src/domain/state/migration/migration.ts'
import { createMigrations, type Migrations } from '../../src/domain/state/migration/migrations.ts'
import { createFigures, type Figures } from '../../src/domain/state/migration/rows/figures.ts'
import { openStore } from '../../src/domain/state/open-store.ts'
import type { MovableStore } from '../../src/domain/state/store.ts'
import { createLog } from '../../src/platform/log.ts'
import { createPostgres, type Postgres } from '../../src/platform/postgres/postgres.ts'
import { databaseUrl, dropDatabase, type TestDatabase, testDatabase } from './databases.ts'

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

export interface Rig {
  database: Postgres
  migrations: Migrations
  figures: Figures
  /** Options of an engine that stops when the rig is released. */
  engine(name?: string): EngineOptions
  open(url: string): MovableStore
  /** Creates, copies and, unless told not to, cuts over. */
  move(from: string, to: string, options?: Partial<MigrationOptions>): Promise<Migration>
  /** Asks and works until it is done. */
  ask(id: string, wanted: Wanted): Promise<Migration>
  /** A database for Z-Push's tables, as a URL. */
  zpush(): Promise<string>
  /** A migrated database, as a URL. */
  baton(): Promise<string>
  release(): Promise<void>
}

/** As quick as a test wants it: nobody else writes. */
export const quick: MigrationOptions = { ...defaultOptions, drainQuietMs: 200, deltaEveryMs: 200 }

/** An engine with everything it needs, on databases of its own. */
export async function createRig(): Promise<Rig> {
  const own = await testDatabase()
  const dropped: TestDatabase[] = [own]
  const clock = createSystemClock()
  const database = connect(own.url, 16)
  const migrations = createMigrations(database)
  const stop = new AbortController()
  const open = (url: string): MovableStore => openStore(url, { clock, connect })
  const engine = (name = 'engine'): EngineOptions => ({
    migrations,
    openStore: open,
    clock,
    log: createLog({ level: 'silent', process: 'test' }),
    engine: name,
    signal: stop.signal,
  })
  const run = (id: string, until: Phase[]): Promise<Migration> =>
    runMigration(id, {
      ...engine(),
      until: (each) => each.paused || (until.includes(each.phase) && each.wanted === undefined),
    })
  const ask = async (id: string, wanted: Wanted): Promise<Migration> => {
    await migrations.request(id, wanted)
    return run(id, ['ready', 'watching', 'done', 'rolled-back', 'cancelled'])
  }
  return {
    database,
    migrations,
    figures: createFigures(database),
    engine,
    open,
    ask,
    move: async (from, to, options) => {
      const { id } = await migrations.create({
        id: randomUUID(),
        sourceUrl: from,
        targetUrl: to,
        options: { ...quick, ...options },
      })
      return run(id, ['ready'])
    },
    zpush: async () => {
      const made = await emptyDatabase()
      dropped.push(made)
      return `zpush+${made.url}`
    },
    baton: async () => {
      const made = await testDatabase()
      dropped.push(made)
      return made.url
    },
    release: async () => {
      stop.abort()
      await database.close()
      for (const each of dropped) await each.drop()
    },
  }
}
