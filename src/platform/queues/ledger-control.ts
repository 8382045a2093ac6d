import { codeOf } from '../../core/errors.ts'
import type { Postgres } from '../postgres/postgres.ts'
import type { Ledger } from './ledger.ts'
import { unqueuedChannel } from './ledger-sql.ts'

/** Steps 8 and 9, and the end of a row: what people and operators do to rows. */
export type Control = Pick<Ledger, 'cancel' | 'cancelRequested' | 'retry' | 'retryFailed' | 'prune'>

const cancelRow = `UPDATE jobs SET cancel_requested_at = coalesce(cancel_requested_at, now()),
      outcome = CASE WHEN run_token IS NULL THEN 'cancelled' END,
      finished_at = CASE WHEN run_token IS NULL THEN now() END,
      error = CASE WHEN run_token IS NULL
        THEN '{"code":"JOB_CANCELLED","message":"cancelled before it ran"}'::json ELSE error END
    WHERE id = $1 AND outcome IS NULL RETURNING outcome`

/** The checkpoint of a failed job stays: what was done before the fault need not be done again. */
const revived = `outcome = NULL, finished_at = NULL, result = NULL, progress = NULL, cancel_requested_at = NULL,
  checkpoint = CASE WHEN outcome = 'failed' THEN checkpoint END, run_token = NULL,
  attempts = 0, crashes = 0, run_at = now(), retried = retried + 1, queued = false`

const isTaken = `EXISTS (SELECT FROM jobs o WHERE o.name = j.name AND o.dedupe_key = j.dedupe_key AND o.outcome IS NULL)`

const retryFailedRows = (key: string): string => `
  WITH picked AS (
    SELECT j.id, ${key} AS dedupe_key FROM jobs j JOIN (
      SELECT id, row_number() OVER (PARTITION BY name, dedupe_key ORDER BY id) AS nth FROM (
        SELECT id, name, dedupe_key FROM jobs
        WHERE outcome = 'failed' AND ($1::text IS NULL OR name = $1) AND ($2::text IS NULL OR queue = $2)
          AND ($4::timestamptz IS NULL OR finished_at <= $4)
        ORDER BY finished_at LIMIT $3) AS failed) AS numbered USING (id)
    FOR UPDATE OF j SKIP LOCKED)
  UPDATE jobs SET ${revived}, dedupe_key = picked.dedupe_key
  FROM picked WHERE jobs.id = picked.id AND jobs.outcome = 'failed'`

const oldRows = (outcome: string, age: string): string => `ARRAY(SELECT id FROM jobs
  WHERE outcome = '${outcome}' AND finished_at < now() - ${age}::float8 * interval '1 millisecond'
  ORDER BY finished_at LIMIT $3)`
// The outcome is asked for again: a row that is retried at this moment is not old any more.
const pruneRows = `DELETE FROM jobs WHERE outcome IS NOT NULL AND id = ANY(
    ${oldRows('completed', '$1')} || ${oldRows('cancelled', '$1')} || ${oldRows('failed', '$2')})`

export function createControl(postgres: Postgres): Control {
  const unfinished = async (id: string): Promise<boolean | undefined> => {
    const { rows } = await postgres.query<{ unfinished: boolean }>(
      'SELECT outcome IS NULL AS unfinished FROM jobs WHERE id = $1',
      [id],
    )
    return rows[0]?.unfinished
  }
  const tellReconciler = async (): Promise<void> => {
    await postgres.query(`SELECT pg_notify('${unqueuedChannel}', '')`)
  }
  const revive = async (id: string, key: string): Promise<boolean> => {
    const { rowCount } = await postgres.query(
      `UPDATE jobs SET ${revived}, dedupe_key = ${key} WHERE id = $1 AND outcome IS NOT NULL`,
      [id],
    )
    return (rowCount ?? 0) > 0
  }

  return {
    cancel: async (id) => {
      const { rows } = await postgres.query<{ outcome: string | null }>(cancelRow, [id])
      if (rows[0]) return rows[0].outcome === null ? 'requested' : 'cancelled'
      return (await unfinished(id)) === undefined ? 'missing' : 'finished'
    },
    cancelRequested: async (ids) => {
      if (ids.length === 0) return []
      const { rows } = await postgres.query<{ id: string }>(
        'SELECT id FROM jobs WHERE id = ANY($1::uuid[]) AND cancel_requested_at IS NOT NULL AND outcome IS NULL',
        [ids],
      )
      return rows.map((row) => row.id)
    },
    retry: async (id) => {
      const revivedNow = await unlessKeyIsTaken(
        () => revive(id, 'dedupe_key'),
        () => revive(id, 'NULL'),
      )
      if (!revivedNow) return (await unfinished(id)) === undefined ? 'missing' : 'unfinished'
      await tellReconciler()
      return 'retried'
    },
    retryFailed: async (filter, limit) => {
      const values = [filter.name ?? null, filter.queue ?? null, limit, filter.failedUntil ?? null]
      const kept = `CASE WHEN numbered.nth = 1 AND NOT ${isTaken} THEN j.dedupe_key END`
      const { rowCount } = await unlessKeyIsTaken(
        () => postgres.query(retryFailedRows(kept), values),
        () => postgres.query(retryFailedRows('NULL::text'), values),
      )
      if (rowCount) await tellReconciler()
      return rowCount ?? 0
    },
    prune: async ({ finishedMs, failedMs }, limit) => {
      const { rowCount } = await postgres.query(pruneRows, [finishedMs, failedMs, limit])
      return rowCount ?? 0
    },
  }
}

/**
 * A job that is retried by hand gives its dedupe key up to one that has it by now: whoever retries wants it to run,
 * and a key only ever kept new work from being taken in.
 */
async function unlessKeyIsTaken<T>(work: () => Promise<T>, without: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (codeOf(error) !== '23505') throw error
    return without()
  }
}
