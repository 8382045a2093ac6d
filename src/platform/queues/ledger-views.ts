import { type Clock, toIso } from '../../core/clock.ts'
import { isId } from '../../core/ids.ts'
import type { Postgres, Row } from '../postgres/postgres.ts'
import { INPUT_INVALID } from './errors.ts'
import type { JobError, JobFilter, JobPage, JobState, JobView, Ledger } from './ledger.ts'
import { summarize } from './ledger-summary.ts'

/** What people see of rows. */
export type Views = Pick<Ledger, 'get' | 'getMany' | 'list' | 'summary'>

/**
 * What a row of `jobs` is doing, as people see it. By the clock and not by `now()`, which is the begin of the transaction:
 * a row that another one has committed meanwhile would seem to lie ahead.
 */
export const rowState = `CASE WHEN outcome IS NOT NULL THEN outcome WHEN run_token IS NOT NULL THEN 'active'
  WHEN run_at > clock_timestamp() THEN 'delayed' ELSE 'waiting' END`
const columns = `id, name, queue, ${rowState} AS state, payload, attempts, max_attempts, interruptions, progress, result,
  error, priority, retried, runner, enqueued_at, run_at, started_at, finished_at`

interface JobRow extends Row {
  id: string
  name: string
  queue: string
  state: JobState
  payload: unknown
  attempts: number
  max_attempts: number
  interruptions: number
  progress: unknown
  result: unknown
  error: JobError | null
  priority: number
  retried: number
  runner: string | null
  enqueued_at: Date
  run_at: Date
  started_at: Date | null
  finished_at: Date | null
}

/** Rows looked at for one page; a filter that rarely fits gives short pages with a cursor rather than long waits. */
const maxScanned = 20_000

export function createViews(postgres: Postgres, clock: Clock): Views {
  const getMany = async (ids: string[]): Promise<JobView[]> => {
    const known = ids.filter(isId)
    if (known.length === 0) return []
    const { rows } = await postgres.query<JobRow>(`SELECT ${columns} FROM jobs WHERE id = ANY($1::uuid[])`, [
      known,
    ])
    return rows.map(asView)
  }
  return {
    get: async (id) => (await getMany([id]))[0],
    getMany,
    list: (filter) => listJobs(postgres, filter),
    summary: () => summarize(postgres, clock),
  }
}

function asView(row: JobRow): JobView {
  const ended = row.state === 'completed' || row.state === 'failed' || row.state === 'cancelled'
  return {
    id: row.id,
    name: row.name,
    queue: row.queue,
    state: row.state,
    payload: row.payload,
    attempts: row.attempts,
    maxAttempts: row.max_attempts,
    interruptions: row.interruptions,
    progress: row.progress ?? undefined,
    ...(row.state === 'completed' && row.result !== null ? { result: row.result } : {}),
    ...(row.error ? { error: row.error } : {}),
    priority: row.priority,
    retried: row.retried,
    ...(row.runner ? { runner: row.runner } : {}),
    enqueuedAt: toIso(row.enqueued_at.getTime()),
    runAt: toIso(row.run_at.getTime()),
    ...(row.started_at ? { startedAt: toIso(row.started_at.getTime()) } : {}),
    ...(ended && row.finished_at ? { finishedAt: toIso(row.finished_at.getTime()) } : {}),
  }
}

/** One way to walk the table, each along an index: the newest first, or for what is unfinished the next first. */
interface Walk {
  where: string
  /** The columns that order the walk, the last one unique. */
  key: string
  types: string
  direction: 'ASC' | 'DESC'
}

const byNewest: Walk = { where: 'true', key: 'id', types: '$1::uuid', direction: 'DESC' }
const byNext = (where: string): Walk => ({
  where,
  key: 'run_at, id',
  types: '$1::timestamptz, $2::uuid',
  direction: 'ASC',
})
const byFinish = (outcome: string): Walk => ({
  where: `outcome = '${outcome}'`,
  key: 'finished_at, id',
  types: '$1::timestamptz, $2::uuid',
  direction: 'DESC',
})

function walkOf(wanted: JobState | undefined): Walk {
  switch (wanted) {
    case undefined:
      return byNewest
    case 'waiting':
      return byNext('outcome IS NULL AND run_at <= now() AND run_token IS NULL')
    case 'delayed':
      return byNext('outcome IS NULL AND run_at > now() AND run_token IS NULL')
    case 'active':
      return byNext('outcome IS NULL AND run_at <= now() AND run_token IS NOT NULL')
    case 'completed':
    case 'failed':
    case 'cancelled':
      return byFinish(wanted)
  }
}

async function listJobs(postgres: Postgres, filter: JobFilter): Promise<JobPage> {
  const walk = walkOf(filter.state)
  const keys = walk.key.split(', ')
  const after = filter.cursor === undefined ? undefined : readCursor(filter.cursor, keys.length)
  const order = keys.map((key) => `${key} ${walk.direction}`).join(', ')
  const beyond = walk.direction === 'DESC' ? '<' : '>'
  const offset = keys.length
  const { rows } = await postgres.query<JobRow & { place: string; fits: boolean }>(
    `SELECT *, concat_ws('|', ${keys.map(textOf).join(', ')}) AS place FROM (
       SELECT ${columns}, ($${offset + 1}::text IS NULL OR name = $${offset + 1})
         AND ($${offset + 2}::text IS NULL OR queue = $${offset + 2}) AS fits,
         row_number() OVER (ORDER BY ${order}) AS nth
       FROM jobs WHERE ${walk.where} AND ($1::text IS NULL OR (${walk.key}) ${beyond} (${walk.types}))
       ORDER BY ${order} LIMIT ${maxScanned}) AS scanned
     WHERE fits OR nth = ${maxScanned} ORDER BY ${order} LIMIT $${offset + 3}`,
    [...(after ?? keys.map(() => null)), filter.name ?? null, filter.queue ?? null, filter.limit + 1],
  )
  return asPage(rows, filter.limit)
}

/** Microseconds are kept: a cursor cut to milliseconds would skip or repeat the rows of one batch. */
const textOf = (key: string): string =>
  key === 'id' ? 'id' : `to_char(${key} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`

/** One row more than asked for tells that there is a next page; a last row that does not fit, that the walk went on. */
function asPage(rows: (JobRow & { place: string; fits: boolean })[], limit: number): JobPage {
  const shown = rows.slice(0, limit)
  const more = rows.length > limit || shown.some((row) => !row.fits)
  const last = shown.at(-1)
  const jobs = shown.filter((row) => row.fits).map(asView)
  return more && last ? { jobs, cursor: Buffer.from(last.place).toString('base64url') } : { jobs }
}

function readCursor(cursor: string, parts: number): string[] {
  const values = Buffer.from(cursor, 'base64url').toString().split('|')
  const [at, id] = parts === 1 ? [undefined, values[0]] : values
  const isPlace =
    values.length === parts && isId(id ?? '') && (parts === 1 || !Number.isNaN(Date.parse(at ?? '')))
  if (!isPlace) {
    const fault = { path: '/cursor', message: 'is not a cursor of this list' }
    throw INPUT_INVALID({ summary: `cursor ${fault.message}` }, { faults: [fault] })
  }
  return values
}
