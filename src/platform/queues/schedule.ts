import type { Clock } from '../../core/clock.ts'
import type { Service } from '../../core/lifecycle.ts'
import type { Postgres } from '../postgres/postgres.ts'
import { rowOf } from './accept.ts'
import { tellReconciler } from './enqueue-in.ts'
import type { Job } from './job.ts'
import type { Ledger } from './ledger.ts'
import { nextFire } from './next-fire.ts'
import { claimLarge } from './payload-claim.ts'
import type { PayloadStore } from './payload-store.ts'
import type { Registry } from './registry.ts'

export interface SchedulerOptions {
  postgres: Postgres
  ledger: Ledger
  registry: Registry<never>
  clock: Clock
  onError(error: unknown): void
  /** Told of each job that was enqueued by the clock. For the log. */
  onFired?(fired: { schedule: string; id: string }): void
  /** Takes payloads that are too large for a row; without it they stay there. */
  payloads?: PayloadStore
}

/** Longest pause between two looks, ms. */
const lookEveryMs = 1_000
/** How often a process says that it still has its definitions, ms. */
const tellEveryMs = 20_000
/** After this a schedule that nobody has any more is removed, ms. Longer than a rolling restart leaves gaps. */
const forgottenMs = 120_000

interface DueRow {
  name: string
  next_at: Date
  now: Date
}

/**
 * Enqueues the jobs that run by the clock: the database's. Any number of processes may run one: whoever moves
 * `next_at` forward inserts the job in the same transaction, so exactly one of them does.
 *
 * Times that were missed, since nothing ran then, fire once. A process only fires what it has a definition of, as
 * it has it: during a deploy the old release leaves a changed schedule to the new one.
 */
export function createScheduler(options: SchedulerOptions): Service {
  const { clock, onError } = options
  const jobs = options.registry.jobs.filter(isScheduled)
  const stopping = new AbortController()
  let running: Promise<void> | undefined
  let toldAt: number | undefined

  const look = async (): Promise<void> => {
    if (toldAt === undefined || clock.monotonicMs() - toldAt >= tellEveryMs) {
      await tell(options, jobs, { isFirst: toldAt === undefined })
      toldAt = clock.monotonicMs()
    }
    for (const due of await findDue(options.postgres, jobs)) await fire(options, due).catch(onError)
  }
  const run = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      await look().catch(onError)
      await clock.sleep(lookEveryMs, stopping.signal)
    }
  }

  return {
    start: async () => void (running ??= run()),
    stop: async () => {
      stopping.abort()
      await running
    },
  }
}

type ScheduledJob = Job & { schedule: NonNullable<Job['schedule']> }
const isScheduled = (job: Job): job is ScheduledJob => job.schedule !== undefined
const zoneOf = (job: ScheduledJob): string => job.schedule.timeZone ?? 'UTC'

const upsert = `
  INSERT INTO schedules (name, job, payload, cron, time_zone, next_at)
  SELECT name, name, payload, cron, time_zone, next_at
  FROM unnest($1::text[], $2::json[], $3::text[], $4::text[], $5::timestamptz[])
    AS r (name, payload, cron, time_zone, next_at)`
/** At the start a definition wins over what stands there; a schedule that is as it was keeps its time. */
const overwrite = `${upsert} ON CONFLICT (name) DO UPDATE SET payload = excluded.payload, cron = excluded.cron,
  time_zone = excluded.time_zone, seen_at = now(),
  next_at = CASE WHEN (schedules.cron, schedules.time_zone) = (excluded.cron, excluded.time_zone)
    THEN schedules.next_at ELSE excluded.next_at END`
/** Later it only says that it is still meant: of two releases side by side neither undoes what the other says. */
const confirm = `${upsert} ON CONFLICT (name) DO UPDATE SET seen_at = now()
  WHERE (schedules.cron, schedules.time_zone) = (excluded.cron, excluded.time_zone)`

async function tell(
  { postgres, onError }: SchedulerOptions,
  jobs: ScheduledJob[],
  { isFirst }: { isFirst: boolean },
): Promise<void> {
  const { rows } = await postgres.query<{ now: Date }>('SELECT now() AS now')
  const timed = jobs.flatMap((job) => {
    try {
      return rows.map(({ now }) => ({ job, nextAt: nextFire(job.schedule.cron, zoneOf(job), now) }))
    } catch (error) {
      // Such as a time zone that this machine does not know: the others run all the same.
      onError(error)
      return []
    }
  })
  if (timed.length > 0) {
    await postgres.query(isFirst ? overwrite : confirm, [
      timed.map(({ job }) => job.name),
      timed.map(({ job }) => JSON.stringify(job.schedule.payload) ?? 'null'),
      timed.map(({ job }) => job.schedule.cron),
      timed.map(({ job }) => zoneOf(job)),
      timed.map(({ nextAt }) => nextAt),
    ])
  }
  await postgres.query(`DELETE FROM schedules WHERE seen_at < now() - interval '${forgottenMs} milliseconds'`)
}

async function findDue(
  postgres: Postgres,
  jobs: ScheduledJob[],
): Promise<{ job: ScheduledJob; row: DueRow }[]> {
  if (jobs.length === 0) return []
  const { rows } = await postgres.query<DueRow>({
    name: 'schedules-due',
    text: `SELECT s.name, s.next_at, now() AS now
      FROM schedules s JOIN unnest($1::text[], $2::text[], $3::text[]) AS r (name, cron, time_zone)
        ON (s.name, s.cron, s.time_zone) = (r.name, r.cron, r.time_zone)
      WHERE s.next_at <= now() ORDER BY s.next_at`,
    values: [jobs.map((job) => job.name), jobs.map((job) => job.schedule.cron), jobs.map(zoneOf)],
  })
  return rows.flatMap((row) => {
    const job = jobs.find((each) => each.name === row.name)
    return job ? [{ job, row }] : []
  })
}

async function fire(
  { postgres, ledger, clock, onFired, payloads }: SchedulerOptions,
  { job, row }: { job: ScheduledJob; row: DueRow },
): Promise<void> {
  const next = nextFire(job.schedule.cron, zoneOf(job), row.now)
  const input = rowOf({ job, payload: job.schedule.payload }, clock.now())
  if (payloads) await claimLarge([input], payloads)
  const accepted = await postgres.transaction(async (client) => {
    const { rowCount } = await client.query(
      // A Date has milliseconds: compared with more, a time that somebody set by hand would never come.
      `UPDATE schedules SET next_at = $3, last_at = now()
       WHERE name = $1 AND date_trunc('milliseconds', next_at) = $2`,
      [row.name, row.next_at, next],
    )
    if (rowCount === 0) return []
    const inserted = await ledger.insert([{ ...input, queued: false }], client)
    await tellReconciler(client)
    return inserted
  })
  for (const { id } of accepted) onFired?.({ schedule: row.name, id })
}
