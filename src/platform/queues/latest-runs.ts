import type { Queryable } from '../postgres/postgres.ts'
import type { JobView, Ledger } from './ledger.ts'

/** What a recurring job of this name does now, and did last. */
export interface LatestRuns {
  name: string
  /** Waits or runs. */
  unfinished?: JobView
  /** Absent: there is none, or too much has come since. */
  finished?: JobView
  /** By its schedule. ISO 8601. */
  nextAt?: string
}

export interface LatestRunsOptions {
  postgres: Queryable
  ledger: Pick<Ledger, 'getMany'>
  names: readonly string[]
}

/**
 * No index finds jobs by their name. Those that are unfinished are found by their dedupe key; the others by the time
 * at which the schedule fired, since ids begin with their time, and among the newest of all.
 */
const text = `
WITH newest AS MATERIALIZED (
  SELECT id, name FROM jobs ORDER BY id DESC LIMIT 10000
), fired AS (
  SELECT j.id, j.name FROM schedules s CROSS JOIN LATERAL (
    SELECT id, name FROM jobs WHERE id >= (lpad(to_hex((extract(epoch FROM s.last_at - interval '10 s') * 1000)::bigint), 12, '0')
       || repeat('0', 20))::uuid ORDER BY id LIMIT 10000) AS j
   WHERE s.name = ANY ($1) AND s.last_at IS NOT NULL AND j.name = s.job
), waiting AS (
  SELECT id, name FROM jobs WHERE name = ANY ($1) AND outcome IS NULL AND dedupe_key IS NOT NULL
)
SELECT DISTINCT ON (name, open) id::text FROM (
  SELECT f.id, f.name, j.outcome IS NULL AS open
    FROM (SELECT * FROM newest WHERE name = ANY ($1) UNION SELECT * FROM fired UNION SELECT * FROM waiting) AS f
    JOIN jobs j ON j.id = f.id) AS found
 ORDER BY name, open, id DESC`

export async function readLatestRuns({ postgres, ledger, names }: LatestRunsOptions): Promise<LatestRuns[]> {
  const [found, schedules] = await Promise.all([
    postgres.query<{ id: string }>(text, [names]),
    postgres.query<{ name: string; next_at: Date }>(
      'SELECT name, next_at FROM schedules WHERE name = ANY ($1)',
      [names],
    ),
  ])
  const jobs = await ledger.getMany(found.rows.map(({ id }) => id))
  return names.map((name) => {
    const own = jobs.filter((job) => job.name === name)
    const unfinished = own.find((job) => job.finishedAt === undefined)
    const finished = own.find((job) => job.finishedAt !== undefined)
    const schedule = schedules.rows.find((row) => row.name === name)
    return {
      name,
      ...(unfinished ? { unfinished } : {}),
      ...(finished ? { finished } : {}),
      ...(schedule ? { nextAt: schedule.next_at.toISOString() } : {}),
    }
  })
}
