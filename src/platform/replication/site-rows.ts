import type { Clock } from '../../core/clock.ts'
import { codeOf } from '../../core/errors.ts'
import type { Client, Postgres, Queryable } from '../postgres/postgres.ts'
import { SITE_BUSY } from './errors.ts'
import type { SiteState } from './site.ts'

/** The lock that every write takes shared. The same number is in migration 0050. */
const fenceKey = 1_651_471_214
/** While somebody waits for the fence every new writer waits behind him, so one wait is short. */
const waitMs = 1_000
const pauseMs = 250
/** lock_not_available, deadlock_detected */
const notNow = new Set(['55P03', '40P01'])

type StateRow = Omit<SiteState, 'epoch'> & { epoch: string }

const stateSql = 'SELECT role, intake, epoch, lineage, leader FROM site'

export const readState = (database: Queryable): Promise<SiteState> => selectState(database, stateSql)

/** As it stands now, and nobody else changes it until the end of the transaction. */
export const lockState = (client: Client): Promise<SiteState> => selectState(client, `${stateSql} FOR UPDATE`)

async function selectState(database: Queryable, sql: string): Promise<SiteState> {
  const { rows } = await database.query<StateRow>(sql)
  const [row] = rows
  if (!row) throw new Error('the row of the site is gone: somebody deleted it by hand')
  return { ...row, epoch: Number(row.epoch) }
}

/** From then until the end of the transaction nobody writes what is replicated. */
export const takeFence = (client: Client): Promise<unknown> =>
  client.query('SELECT pg_advisory_xact_lock($1)', [fenceKey])

export interface Patience {
  /** What becomes of the site, for people. */
  what: string
  limitMs: number
}

/**
 * Runs `work` in a transaction whose waits for locks are short, again and again: others write between two tries, and a
 * long transaction of theirs holds up nobody for as long as it takes.
 * @throws SITE_BUSY after the limit
 */
export async function patiently<T>(
  { postgres, clock }: { postgres: Postgres; clock: Clock },
  { what, limitMs }: Patience,
  work: (client: Client) => Promise<T>,
): Promise<T> {
  const untilMs = clock.monotonicMs() + limitMs
  for (;;) {
    const leftMs = Math.ceil(untilMs - clock.monotonicMs())
    try {
      return await postgres.transaction(async (client) => {
        await client.query(`SELECT set_config('lock_timeout', $1, true)`, [
          `${Math.max(1, Math.min(waitMs, leftMs))}ms`,
        ])
        return work(client)
      })
    } catch (error) {
      if (!notNow.has(codeOf(error) ?? '')) throw error
      if (clock.monotonicMs() + pauseMs >= untilMs) {
        const who = await namesOfWriters(postgres).catch(() => 'unknown')
        throw SITE_BUSY({ what, ms: limitMs, who }, { cause: error, retryAfterMs: 5_000 })
      }
    }
    await clock.sleep(pauseMs)
  }
}

/** The oldest three transactions that hold the fence, or else a lock of one of our tables. */
async function namesOfWriters(postgres: Postgres): Promise<string> {
  const { rows } = await postgres.query<{ name: string }>(
    `SELECT format('%s (process %s, for %s s)', coalesce(nullif(application_name, ''), 'somebody'), pid,
         ceil(extract(epoch FROM clock_timestamp() - xact_start))) AS name
     FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND xact_start IS NOT NULL AND pid IN (
       SELECT pid FROM pg_locks WHERE granted AND (
         locktype = 'advisory' AND classid = 0 AND objid = $1 AND objsubid = 1
         OR locktype = 'relation' AND mode = 'RowExclusiveLock')
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
     ORDER BY xact_start LIMIT 3`,
    [fenceKey],
  )
  return rows.map(({ name }) => name).join(', ') || 'nobody any more'
}
