import { type Clock, toIso } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import { newId } from '../../core/ids.ts'
import { insertAudit } from '../access/audit-log.ts'
import type { Log } from '../log.ts'
import type { Client, Postgres } from '../postgres/postgres.ts'
import type { Ledger } from './ledger.ts'

/**
 * Retries all failed jobs that match a filter, at a bounded rate: a thousand jobs that failed because a server was
 * down would take it down again if they came back at once.
 *
 * Each retry is a row of `bulk_retries`. Every process that runs `work` looks for rows whose lease has run out,
 * takes one bite (a second's worth), and sets the lease to the second in which the next is due. So the rate holds
 * however many processes there are, and a process that dies is followed by another after `heldMs`. What may be
 * lost by a crash between the bite and its count is the count, never a job.
 */
export interface BulkRetries {
  /** Begins one, or answers with the one that runs already for the same filter. */
  begin(wanted: WantedRetry): Promise<{ retry: BulkRetry; begun: boolean }>
  /** False when it had ended. What was retried stays retried. */
  stop(id: string, actor: string): Promise<boolean>
  /** The newest first; those that run before all others. */
  list(limit: number): Promise<BulkRetry[]>
  /** Does the bites until the signal aborts; then resolves when none is under way. */
  work(signal: AbortSignal): Promise<void>
}

export interface WantedRetry {
  actor: string
  filter: { name?: string; queue?: string }
  /** Jobs per second, 1 to 1000. */
  perSecond: number
}

export interface BulkRetry {
  id: string
  actor: string
  name?: string
  queue?: string
  perSecond: number
  state: 'running' | 'done' | 'stopped'
  /** Failed jobs that matched when it began; a lower bound when not exact. */
  matched: number
  matchedExact: boolean
  retried: number
  createdAt: string
  finishedAt?: string
}

export interface BulkRetriesOptions {
  postgres: Postgres
  ledger: Pick<Ledger, 'retryFailed'>
  clock: Clock
  log: Log
}

interface RetryRow {
  id: string
  actor: string
  name: string | null
  queue: string | null
  /** As text: a Date would lose the microseconds, and with them the jobs that failed last. */
  failed_until: string
  per_second: number
  matched: number
  matched_exact: boolean
  retried: number
  created_at: Date
  outcome: 'done' | 'stopped' | null
  finished_at: Date | null
}

const maxCounted = 100_000
/** How long a bite may take before another process takes over, ms. */
const heldMs = 15_000
const biteEveryMs = 1_000
/** How often processes look for work that others began, ms. */
const lookEveryMs = 5_000

const columns = `id, actor, name, queue, failed_until::text AS failed_until, per_second, matched, matched_exact, retried,
  created_at, outcome, finished_at`
const matching = `outcome = 'failed' AND ($1::text IS NULL OR name = $1) AND ($2::text IS NULL OR queue = $2)`
const insert = `INSERT INTO bulk_retries (id, actor, name, queue, per_second, matched, matched_exact)
  SELECT $3::uuid, $4::text, $1::text, $2::text, $5::integer, least(n, ${maxCounted}), n <= ${maxCounted}
  FROM (SELECT count(*) AS n FROM (SELECT FROM jobs WHERE ${matching} LIMIT ${maxCounted + 1}) AS counted) AS matched
  ON CONFLICT DO NOTHING RETURNING ${columns}`
const findRunning = `SELECT ${columns} FROM bulk_retries
  WHERE outcome IS NULL AND name IS NOT DISTINCT FROM $1 AND queue IS NOT DISTINCT FROM $2`
const claim = `UPDATE bulk_retries SET lease_until = now() + interval '${heldMs} milliseconds'
  WHERE id IN (SELECT id FROM bulk_retries WHERE outcome IS NULL AND lease_until <= now()
    ORDER BY lease_until LIMIT 1 FOR UPDATE SKIP LOCKED)
  RETURNING ${columns}`
const count = `UPDATE bulk_retries SET retried = retried + $2,
  lease_until = lease_until - interval '${heldMs - biteEveryMs} milliseconds' WHERE id = $1`
const anyLeft = `SELECT EXISTS (SELECT FROM jobs WHERE ${matching} AND finished_at <= $3::timestamptz) AS left`
const end = `UPDATE bulk_retries SET outcome = $2, finished_at = now() WHERE id = $1 AND outcome IS NULL
  RETURNING ${columns}`
const forget = `DELETE FROM bulk_retries WHERE finished_at < now() - interval '30 days'`

export function createBulkRetries(options: BulkRetriesOptions): BulkRetries {
  const { postgres, ledger, clock, log } = options
  let wake = new AbortController()

  /** One second's worth of one retry. False: there is nothing to do now. */
  const bite = async (): Promise<boolean> => {
    const { rows } = await postgres.query<RetryRow>(claim)
    const [row] = rows
    if (!row) return false
    const filter = { ...filterOf(row), failedUntil: row.failed_until }
    const retried = await ledger.retryFailed(filter, row.per_second)
    if (retried > 0 || (await isLeft(postgres, row))) await postgres.query(count, [row.id, retried])
    else await postgres.transaction((client) => finish(client, row.id, { outcome: 'done', actor: row.actor }))
    return true
  }

  const biteSafely = async (): Promise<boolean> => {
    try {
      return await bite()
    } catch (error) {
      log.warn({ reason: messageOf(error) }, 'A retry of many jobs is held up; it goes on by itself')
      return false
    }
  }

  const isAnyRunning = async (): Promise<boolean> => {
    const { rows } = await postgres.query('SELECT FROM bulk_retries WHERE outcome IS NULL LIMIT 1')
    return rows.length > 0
  }

  return {
    begin: async ({ actor, filter, perSecond }) => {
      const result = await postgres.transaction((client) =>
        beginIn(client, { id: newId(clock.now()), actor, filter, perSecond }),
      )
      wake.abort()
      return result
    },
    stop: (id, actor) =>
      postgres.transaction(
        async (client) => (await finish(client, id, { outcome: 'stopped', actor })) !== undefined,
      ),
    list: async (limit) => {
      const { rows } = await postgres.query<RetryRow>(
        `SELECT ${columns} FROM bulk_retries ORDER BY outcome IS NOT NULL, id DESC LIMIT $1`,
        [limit],
      )
      return rows.map(viewOf)
    },
    work: async (signal) => {
      const stop = (): void => wake.abort()
      signal.addEventListener('abort', stop)
      while (!signal.aborted) {
        if (await biteSafely()) continue
        const busy = await isAnyRunning().catch(() => false)
        await clock.sleep(busy ? biteEveryMs / 4 : lookEveryMs, wake.signal)
        if (!signal.aborted) wake = new AbortController()
      }
      signal.removeEventListener('abort', stop)
    },
  }
}

async function beginIn(
  client: Client,
  wanted: WantedRetry & { id: string },
): Promise<{ retry: BulkRetry; begun: boolean }> {
  const { id, actor, filter, perSecond } = wanted
  const filterValues = [filter.name ?? null, filter.queue ?? null]
  await client.query(forget)
  const { rows: inserted } = await client.query<RetryRow>(insert, [...filterValues, id, actor, perSecond])
  if (inserted[0]) {
    const retry = viewOf(inserted[0])
    const details = { ...filter, perSecond, matched: retry.matched }
    await insertAudit(client, { actor, action: 'jobs.retry-all', subject: id, details })
    return { retry, begun: true }
  }
  const { rows: running } = await client.query<RetryRow>(findRunning, filterValues)
  // It ended between the two statements: the caller's next try begins a new one.
  if (!running[0]) throw new Error('another retry of the same jobs ended at this moment; begin again')
  return { retry: viewOf(running[0]), begun: false }
}

async function finish(
  client: Client,
  id: string,
  { outcome, actor }: { outcome: 'done' | 'stopped'; actor: string },
): Promise<BulkRetry | undefined> {
  const { rows } = await client.query<RetryRow>(end, [id, outcome])
  if (!rows[0]) return undefined
  const retry = viewOf(rows[0])
  const action = outcome === 'done' ? 'jobs.retry-all.done' : 'jobs.retry-all.stop'
  await insertAudit(client, { actor, action, subject: id, details: { retried: retry.retried } })
  return retry
}

/** Rows that another transaction holds at this moment are passed over by a bite, so none retried is not yet the end. */
async function isLeft(postgres: Postgres, row: RetryRow): Promise<boolean> {
  const { rows } = await postgres.query<{ left: boolean }>(anyLeft, [row.name, row.queue, row.failed_until])
  return rows[0]?.left === true
}

const filterOf = (row: RetryRow): { name?: string; queue?: string } => ({
  ...(row.name === null ? {} : { name: row.name }),
  ...(row.queue === null ? {} : { queue: row.queue }),
})

const viewOf = (row: RetryRow): BulkRetry => ({
  id: row.id,
  actor: row.actor,
  ...filterOf(row),
  perSecond: row.per_second,
  state: row.outcome ?? 'running',
  matched: row.matched,
  matchedExact: row.matched_exact,
  retried: row.retried,
  createdAt: toIso(row.created_at.getTime()),
  ...(row.finished_at ? { finishedAt: toIso(row.finished_at.getTime()) } : {}),
})
