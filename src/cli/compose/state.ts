import { type Clock, createSystemClock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import { createStateAdministration, type StateAdministration } from '../../domain/state/administration.ts'
import { createStateGate } from '../../domain/state/gate.ts'
import { createMissCounter } from '../../domain/state/migration/storm-guard.ts'
import { createPostgresStore } from '../../domain/state/stores/postgres.ts'
import type { AuditLog } from '../../platform/access.ts'
import type { Config } from '../../platform/config/config.ts'
import { createLog, type Log } from '../../platform/log.ts'
import { assertMigrated } from '../../platform/postgres/migrate.ts'
import { createPostgres, type Postgres } from '../../platform/postgres/postgres.ts'
import type { Acceptance } from '../../platform/queues/accept.ts'
import type { Registry } from '../../platform/queues/registry.ts'
import { createStateRoutes } from '../../runtime/web/state-routes.ts'
import type { Ground } from '../compose.ts'
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

/** The routes of states and migrations. The store is Baton's own, on the web tier's pool. */
export function createStateWeb(ground: Ground, { acceptance, registry, audit }: StateWebParts) {
  const { postgres, clock, log, releasers } = ground
  const { states, close } = createAdministration({ databaseUrl: postgres.url, clock, log })
  releasers.add('states', close)
  const misses = createMissCounter({
    database: postgres,
    clock,
    onStorm: (storm) => log.error({ ...storm }, 'a storm: the gate of the store of states is closed'),
  })
  return createStateRoutes({
    store: createPostgresStore({ database: postgres, place: 'postgres:' }),
    gate: createStateGate(postgres),
    misses,
    states,
    enqueue: createEnqueueMigration(acceptance, registry),
    audit,
  })
}

export interface StateWebParts {
  acceptance: Pick<Acceptance, 'accept'>
  registry: Registry
  audit: AuditLog
}

/** Has workers work on a migration: as many as said, or none when enough are. */
export const createEnqueueMigration =
  (acceptance: Pick<Acceptance, 'accept'>, registry: Registry) =>
  async (migration: string, workers: number): Promise<void> => {
    const job = registry.get('state-migration')
    const numbers = Array.from({ length: workers }, (_each, index) => index + 1)
    // A key for each worker: asking again adds those that are not at work any more.
    await acceptance.accept(
      numbers.map((number) => ({ job, payload: { migration }, dedupeKey: `${migration} ${number}` })),
    )
  }
