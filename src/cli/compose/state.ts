import { type Clock, createSystemClock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import { createStateAdministration, type StateAdministration } from '../../domain/state/administration.ts'
import type { Config } from '../../platform/config/config.ts'
import { createLog, type Log } from '../../platform/log.ts'
import { assertMigrated } from '../../platform/postgres/migrate.ts'
import { createPostgres, type Postgres } from '../../platform/postgres/postgres.ts'
import { openDatabase } from './database.ts'

/** Devices that one process copies at once, and connections for them and for looking on. */
export const stateConcurrency = 4
const connections = 2 * stateConcurrency + 4
/** A device of many thousands of states is one statement. */
const statementTimeoutMs = 1_800_000

/** A pool for a store of states, or for the rows of migrations. */
export function connectState(url: string, log: Log): Postgres {
  return createPostgres({
    url,
    max: connections,
    applicationName: 'baton state',
    statementTimeoutMs,
    onError: (error) => log.warn({ reason: messageOf(error) }, 'a connection has trouble'),
  })
}

export interface AdministrationParts {
  databaseUrl: string
  clock: Clock
  log: Log
}

/** Migrations on a pool of their own: a claim holds its connection for as long as a device takes. */
export function createAdministration({ databaseUrl, clock, log }: AdministrationParts): {
  states: StateAdministration
  close(): Promise<void>
} {
  const database = connectState(databaseUrl, log)
  const connect = (url: string): Postgres => connectState(url, log)
  const states = createStateAdministration({ database, clock, log, connect })
  return { states, close: () => database.close() }
}

/** Opens Baton's database for one command about states, and closes it when it is done. */
export async function withStates<T>(
  config: Config,
  work: (states: StateAdministration) => Promise<T>,
): Promise<T> {
  const log = createLog({ level: 'error', process: 'command' })
  const opened = await openDatabase(config, log)
  const { states, close } = createAdministration({
    databaseUrl: opened.url,
    clock: createSystemClock(),
    log,
  })
  try {
    await assertMigrated(states.migrations.database)
    return await work(states)
  } finally {
    await close()
    await opened.close()
  }
}
