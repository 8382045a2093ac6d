import type { Clock } from '../../../core/clock.ts'
import type { Postgres } from '../../../platform/postgres/postgres.ts'
import type { StateKey } from '../state-key.ts'
import { gateOf, type Storm } from './migration.ts'

/** Counts the devices that ask for states which are not there, against those that were moved. */
export interface StormGuard {
  /**
   * Notes devices that lack a state, and judges. Above the threshold the storm is written in the same statement, once.
   *
   * @returns the storm when it broke out just now
   */
  miss(migration: string, devices: string[]): Promise<Storm | undefined>
  /** After all devices of the target were looked at: marks these as well and writes the true numbers. */
  settle(migration: string, devices: string[], wrote: number): Promise<void>
}

/** A fail-save state that is missing is normal: it is there only after a failure. */
export const countsAsMiss = (key: StateKey): boolean => key.type !== 'fs' && key.type !== 'bs'

/**
 * A device counts once; those known from a storm are expected to start anew when they are let in again. Each portion is
 * judged by itself: the threshold grows with it, and only what was missed since then counts. (A statement sees the
 * table as it was before its own WITH, so what it marks is added.)
 */
const missSql = `
  WITH missed AS (
    UPDATE state_migration_devices SET missed_at = now()
     WHERE migration = $1 AND device = ANY($2) AND status = 'moved' AND missed_at IS NULL
     RETURNING device),
  figures AS (
    SELECT m.id, m.options, m.storm, m.admitted, m.admitted_at,
           (SELECT count(*) FROM state_migration_devices d WHERE d.migration = m.id AND d.status = 'moved') AS moved,
           (SELECT count(*) FROM missed) + (SELECT count(*) FROM state_migration_devices d
              WHERE d.migration = m.id AND d.missed_at IS NOT NULL
                AND d.missed_at >= CASE WHEN m.admitted IS NULL THEN '-infinity' ELSE m.admitted_at END) AS affected
      FROM state_migrations m WHERE m.id = $1 AND m.phase = 'watching'),
  judged AS (
    SELECT *, greatest((options->>'stormMinimum')::int,
                       ceil((options->>'stormShare')::float8 * moved * coalesce(admitted, 100) / 100)) AS threshold
      FROM figures)
  UPDATE state_migrations s
     SET storm = json_build_object('moved', j.moved, 'affected', j.affected, 'wrote', $3::int, 'exact', false, 'threshold', j.threshold,
                   'advice', CASE WHEN j.affected * 2 < j.moved THEN 'roll-back' ELSE 'keep' END,
                   'at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')),
         storm_at = now(), admitted = NULL, updated_at = now()
    FROM judged j
   WHERE s.id = j.id AND j.affected >= j.threshold AND (j.storm IS NULL OR j.admitted IS NOT NULL)
  RETURNING s.storm`

export function createStormGuard(database: Postgres): StormGuard {
  return {
    miss: async (migration, devices) => {
      const { rows } = await database.query<{ storm: Storm }>(missSql, [migration, devices, 0])
      return rows[0]?.storm
    },
    settle: async (migration, devices, wrote) => {
      await database.query(
        `UPDATE state_migration_devices SET missed_at = now()
          WHERE migration = $1 AND device = ANY($2) AND status = 'moved' AND missed_at IS NULL`,
        [migration, devices],
      )
      await database.query(settleSql, [migration, wrote])
    },
  }
}

const settleSql = `
  WITH figures AS (
    SELECT count(*) AS moved, count(missed_at) AS affected FROM state_migration_devices
     WHERE migration = $1 AND status = 'moved')
  UPDATE state_migrations SET storm = (storm::jsonb || jsonb_build_object('moved', moved, 'affected', affected,
           'wrote', $2::int, 'exact', true,
           'advice', CASE WHEN affected * 2 < moved THEN 'roll-back' ELSE 'keep' END))::json, updated_at = now()
    FROM figures WHERE id = $1 AND storm IS NOT NULL`

/** The choice in numbers, one line each. */
export function describeStorm(storm: Storm): string[] {
  const share = ((100 * storm.affected) / Math.max(1, storm.moved)).toFixed(1)
  const well = storm.moved - storm.affected
  const choice =
    storm.advice === 'roll-back'
      ? `Under half are affected: roll back. The ${well} that are well stay so; what was written since is brought back.`
      : `Half or more are affected: keep the target. They start anew either way, and the other ${well} stay well.`
  return [
    `${storm.exact ? '' : 'At least '}${storm.affected} of ${storm.moved} moved devices (${share}%) lack a state; ${storm.threshold} were allowed. ${storm.wrote} wrote since the cut-over.`,
    'The gate of the target is closed: phones get 503 and come back, no further one starts anew.',
    choice,
    'roll-back: `baton state roll-back ID`. keep: `baton state migrate --resume ID` lets the phones in by portions.',
  ]
}

/** The guard of the process that serves states over HTTP: gathers misses and closes the gate of Baton's own store. */
export interface MissCounter {
  note(device: string, key: StateKey): void
  /** Resolves once what was noted is judged. */
  settle(): Promise<void>
}

export interface MissCounterOptions {
  database: Postgres
  clock: Clock
  onStorm(storm: Storm): void
}

const gatherMs = 200

/** The migration that has moved devices to Baton's own store and is watched: its mark was the last to open it. */
async function readWatching(database: Postgres): Promise<string | undefined> {
  const { rows } = await database.query<{ id: string }>(
    `SELECT m.id FROM state_gate g JOIN state_migrations m ON m.id::text = g.owner AND m.phase = 'watching'`,
  )
  return rows[0]?.id
}

export function createMissCounter(options: MissCounterOptions): MissCounter {
  const guard = createStormGuard(options.database)
  const noted = new Set<string>()
  let judging: Promise<void> | undefined

  const judge = async (): Promise<void> => {
    await options.clock.sleep(gatherMs)
    const devices = [...noted]
    noted.clear()
    const migration = await readWatching(options.database)
    const storm = migration && (await guard.miss(migration, devices))
    if (!migration || !storm) return
    await options.database.query(
      `UPDATE state_gate SET version = $1, reason = 'storm', admitted = 0, changed_at = now()`,
      [gateOf(migration)],
    )
    options.onStorm(storm)
  }

  return {
    note: (device, key) => {
      if (!countsAsMiss(key)) return
      noted.add(device)
      judging ??= judge()
        // A guard that fails must not take the request down; the next miss tries again.
        .catch(() => undefined)
        .finally(() => {
          judging = undefined
        })
    },
    settle: async () => {
      await judging
    },
  }
}
