import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import path from 'node:path'
import pg from 'pg'
import { createSystemClock } from '../../src/core/clock.ts'
import type { MigrationView } from '../../src/domain/state/migration/view.ts'
import { openStore } from '../../src/domain/state/open-store.ts'
import type { MovableStore } from '../../src/domain/state/store.ts'
import { migrate } from '../../src/platform/postgres/migrate.ts'
import { type BatonProcess, spawnBaton } from './processes.ts'
import { type PrivateServer, startPostgres } from './servers.ts'
import { connect } from './state.ts'
import { listing } from './zpush.ts'

/** A Postgres that may be killed, a folder, and `baton state` as real processes. */
export interface StateSite {
  postgres: PrivateServer
  folder: string
  databaseUrl: string
  /** An empty database, as a URL of Z-Push's tables; or with Baton's own. */
  zpush(): Promise<string>
  baton(): Promise<string>
  state(...args: string[]): BatonProcess
  /** Runs it to its end. */
  run(...args: string[]): Promise<{ code: number | null; lines: string[] }>
  /** The same with --json. @throws when its exit code is not 0 */
  json<T = MigrationView>(...args: string[]): Promise<T>
  listing(url: string): Promise<string[]>
  withStore<T>(url: string, work: (store: MovableStore) => Promise<T>): Promise<T>
  release(): Promise<void>
}

export async function createStateSite(): Promise<StateSite> {
  const postgres = await startPostgres()
  const folder = await mkdtemp(path.join('/tmp', 'baton-state-'))
  const create = async (): Promise<string> => {
    const name = `t${randomBytes(4).toString('hex')}`
    const admin = new pg.Client({ connectionString: postgres.url })
    await admin.connect()
    await admin.query(`CREATE DATABASE ${name} TEMPLATE template0`)
    await admin.end()
    const url = new URL(postgres.url)
    url.pathname = `/${name}`
    return url.href
  }
  const databaseUrl = await create()
  await migrate(databaseUrl)
  const environment = { DATABASE_URL: databaseUrl, LOG_LEVEL: 'error' }
  const state = (...args: string[]): BatonProcess => spawnBaton(['state', ...args], environment)
  const run = async (...args: string[]): Promise<{ code: number | null; lines: string[] }> => {
    const child = state(...args)
    const { code } = await child.exit
    return { code, lines: [...child.lines] }
  }
  const withStore = async <T>(url: string, work: (store: MovableStore) => Promise<T>): Promise<T> => {
    const store = openStore(url, { clock: createSystemClock(), connect })
    try {
      return await work(store)
    } finally {
      await store.close()
    }
  }
  return {
    postgres,
    folder,
    databaseUrl,
    zpush: async () => `zpush+${await create()}`,
    baton: async () => {
      const url = await create()
      await migrate(url)
      return url
    },
    state,
    run,
    json: async <T>(...args: string[]) => {
      const child = state(...args, '--json')
      const { code } = await child.exit
      if (code !== 0) throw new Error(`state ${args[0] ?? ''} ended with ${code}: ${child.lines.join('\n')}`)
      return JSON.parse(child.stdout.join('\n')) as T
    },
    listing: (url) => withStore(url, listing),
    withStore,
    release: async () => {
      await postgres.stop()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** Lines of a listing without what a migration changes by intent. */
export const states = (lines: string[]): string[] => lines.filter((line) => !line.startsWith('version\t'))
