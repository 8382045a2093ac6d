import type { Client, Postgres, Queryable } from '../../../../platform/postgres/postgres.ts'
import type { BucketSurvey } from '../../store.ts'
import type { QuarantineLine } from '../migration.ts'
import { addLines } from './devices.ts'

export type Side = 'source' | 'target'

/** What the surveys of a migration left behind. */
export interface Surveys {
  marks(id: string, side: Side): Promise<Map<string, string>>
  /** Puts the devices that differ from what was verified into `pending`. @returns how many differ */
  save(id: string, side: Side, surveys: BucketSurvey[]): Promise<number>
  /** Devices of buckets that are not there any more. @returns how many */
  saveMissing(id: string, side: Side, seen: string[]): Promise<number>
  /** The names (Latin-1) of the buckets' strays that have a line already. */
  knownStrays(id: string, buckets: string[]): Promise<Set<string>>
  /** Adds lines of strays, and removes those of strays that are gone. */
  saveStrays(id: string, buckets: string[], lines: StrayLine[], gone: Buffer[]): Promise<void>
  /** Devices whose fingerprint differs from the verified one; changes nothing. */
  changed(id: string, side: Side, survey: BucketSurvey): Promise<Set<string>>
  /** Moved devices of buckets that a survey of the target did not meet: they have nothing left there. */
  unseen(id: string, seen: string[]): Promise<string[]>
}

export type StrayLine = QuarantineLine & { bucket: string }

export function createSurveys(database: Postgres): Surveys {
  return {
    marks: (id, side) => readMarks(database, id, side),
    save: (id, side, surveys) => database.transaction((client) => saveBuckets(client, id, side, surveys)),
    saveMissing: (id, side, seen) => saveMissing(database, id, side, seen),
    knownStrays: async (id, buckets) => {
      const { rows } = await database.query<{ name: Buffer }>(
        'SELECT name FROM state_migration_quarantine WHERE migration = $1 AND bucket = ANY($2)',
        [id, buckets],
      )
      return new Set(rows.map((row) => row.name.toString('latin1')))
    },
    saveStrays: (id, buckets, lines, gone) =>
      database.transaction(async (client) => {
        await client.query(
          `DELETE FROM state_migration_quarantine
            WHERE migration = $1 AND bucket = ANY($2) AND encode(name, 'hex') = ANY($3)`,
          [id, buckets, gone.map((name) => name.toString('hex'))],
        )
        await addLines(client, id, lines)
      }),
    changed: (id, side, survey) => readChanged(database, id, side, survey),
    unseen: async (id, seen) => {
      const { rows } = await database.query<{ device: string }>(
        `SELECT device FROM state_migration_devices
          WHERE migration = $1 AND NOT bucket = ANY($2) AND status = 'moved' AND states > 0 AND missed_at IS NULL`,
        [id, seen],
      )
      return rows.map((row) => row.device)
    },
  }
}

async function readMarks(database: Queryable, id: string, side: Side): Promise<Map<string, string>> {
  const { rows } = await database.query<{ bucket: string; mark: string }>(
    'SELECT bucket, mark FROM state_migration_buckets WHERE migration = $1 AND side = $2',
    [id, side],
  )
  return new Map(rows.map((row) => [row.bucket, row.mark]))
}

const pend = `status = 'pending', tries = 0, not_before = NULL`

async function saveBuckets(client: Client, id: string, side: Side, surveys: BucketSurvey[]): Promise<number> {
  const fingerprint = `${side}_fingerprint`
  const rows = surveys.flatMap(({ bucket, devices }) => devices.map((each) => ({ ...each, bucket })))
  const devices = rows.map((row) => row.device)
  // A device that failed is tried again whenever its bucket is looked into.
  const differing = await client.query(
    `INSERT INTO state_migration_devices AS d (migration, device, bucket)
     SELECT $1, s.device, s.bucket FROM unnest($2::text[], $3::text[], $4::text[]) AS s (device, bucket, fingerprint)
       LEFT JOIN state_migration_devices k ON k.migration = $1 AND k.device = s.device
      WHERE k.device IS NULL OR k.status = 'failed'
         OR (k.status IN ('moved', 'removed') AND k.${fingerprint} IS DISTINCT FROM s.fingerprint)
     ON CONFLICT (migration, device) DO UPDATE SET ${pend}`,
    [id, devices, rows.map((row) => row.bucket), rows.map((row) => row.fingerprint)],
  )
  const vanished = await client.query(
    `UPDATE state_migration_devices d SET ${pend}
      WHERE migration = $1 AND bucket = ANY($2) AND (status = 'failed' OR (status = 'moved' AND ${fingerprint} <> ''))
        AND NOT EXISTS (SELECT FROM unnest($3::text[]) AS s (device) WHERE s.device = d.device)`,
    [id, surveys.map((each) => each.bucket), devices],
  )
  const marked = surveys.filter((each) => each.mark !== undefined)
  await client.query(
    `INSERT INTO state_migration_buckets (migration, side, bucket, mark)
     SELECT $1, $2, s.bucket, s.mark FROM unnest($3::text[], $4::text[]) AS s (bucket, mark)
     ON CONFLICT (migration, side, bucket) DO UPDATE SET mark = excluded.mark`,
    [id, side, marked.map((each) => each.bucket), marked.map((each) => each.mark)],
  )
  return (differing.rowCount ?? 0) + (vanished.rowCount ?? 0)
}

async function saveMissing(database: Queryable, id: string, side: Side, seen: string[]): Promise<number> {
  const { rowCount } = await database.query(
    `WITH forgotten AS (DELETE FROM state_migration_buckets
                         WHERE migration = $1 AND side = $3 AND NOT bucket = ANY($2))
     UPDATE state_migration_devices SET ${pend}
      WHERE migration = $1 AND NOT bucket = ANY($2)
        AND (status = 'failed' OR (status = 'moved' AND ${side}_fingerprint <> ''))`,
    [id, seen, side],
  )
  return rowCount ?? 0
}

async function readChanged(
  database: Queryable,
  id: string,
  side: Side,
  survey: BucketSurvey,
): Promise<Set<string>> {
  const { rows } = await database.query<{ device: string }>(
    `SELECT coalesce(k.device, s.device) AS device
       FROM unnest($3::text[], $4::text[]) AS s (device, fingerprint)
       FULL JOIN (SELECT device, status, ${side}_fingerprint AS fingerprint FROM state_migration_devices
                   WHERE migration = $1 AND bucket = $2) k ON k.device = s.device
      WHERE coalesce(s.fingerprint, '') <> CASE WHEN k.status = 'removed' THEN '' ELSE coalesce(k.fingerprint, '') END`,
    [
      id,
      survey.bucket,
      survey.devices.map((each) => each.device),
      survey.devices.map((each) => each.fingerprint),
    ],
  )
  return new Set(rows.map((row) => row.device))
}
