import type { Postgres } from '../../../platform/postgres/postgres.ts'
import { kindOf, printable } from '../inspect/troubles.ts'
import { maskUrl } from '../open-store.ts'
import type { Migration, Progress, QuarantineLine, ShownTrouble, Storm } from './migration.ts'
import { describeStorm } from './storm-guard.ts'

/** A migration as it is shown over HTTP, on the command line and on the dashboard: without passwords. */
export interface MigrationView {
  id: string
  from: string
  to: string
  phase: Migration['phase']
  paused: boolean
  wanted?: string
  error?: { code: string; message: string }
  note?: string
  counts: Progress['devices'] & { states: number; bytes: number; links: number }
  /** Of the last ten seconds. */
  rate: { devicesPerSecond: number; statesPerSecond: number; bytesPerSecond: number }
  /** ms until nothing is pending, at this rate. Absent when nothing is, or nothing moves. */
  etaMs?: number
  engines: number
  quarantine: Progress['quarantine'] & { lines?: ShownTrouble[] }
  verification: { verifiedDevices: number; verifiedStates: number; unverifiedDevices: number }
  gate: { closedMs?: number; lastClosedMs?: number }
  stormGuard: {
    missed: number
    allowedShare: number
    storm?: Storm
    choice?: string[]
    admittedParts?: number
  }
  rollBack?: { devices: number }
  scan?: Migration['scan']
  createdAt: string
  cutOverAt?: string
  finishedAt?: string
}

export interface ViewParts {
  migration: Migration
  progress: Progress
  rate: MigrationView['rate']
  lines?: QuarantineLine[]
}

export function toView({ migration, progress, rate, lines }: ViewParts): MigrationView {
  const { storm, options } = migration
  const { devices } = progress
  const closed = migration.phase === 'cutting-over' || migration.phase === 'rolling-back'
  return {
    id: migration.id,
    from: maskUrl(migration.sourceUrl),
    to: maskUrl(migration.targetUrl),
    phase: migration.phase,
    paused: migration.paused,
    ...optional('wanted', migration.wanted),
    ...optional('error', migration.error),
    ...optional('note', migration.note),
    counts: { ...devices, states: progress.states, bytes: progress.bytes, links: migration.links },
    rate,
    ...(devices.pending > 0 && rate.devicesPerSecond > 0
      ? { etaMs: Math.round((1_000 * devices.pending) / rate.devicesPerSecond) }
      : {}),
    engines: progress.engines,
    quarantine: { ...progress.quarantine, ...(lines ? { lines: lines.map(shownLine) } : {}) },
    verification: {
      verifiedDevices: devices.moved,
      verifiedStates: progress.states,
      unverifiedDevices: devices.pending + devices.failed,
    },
    gate: {
      ...(closed ? optional('closedMs', rounded(migration.gateClosedForMs)) : {}),
      ...optional('lastClosedMs', migration.gateMs),
    },
    stormGuard: {
      missed: progress.missed,
      allowedShare: options.stormShare,
      ...(storm ? { storm, choice: describeStorm(storm) } : {}),
      ...optional('admittedParts', migration.admitted),
    },
    ...(migration.backDevices === undefined ? {} : { rollBack: { devices: migration.backDevices } }),
    ...optional('scan', migration.scan),
    createdAt: migration.createdAt,
    ...optional('cutOverAt', migration.cutOverAt),
    ...optional('finishedAt', migration.finishedAt),
  }
}

const rounded = (value: number | undefined): number | undefined => value && Math.round(value)

const optional = <Key extends string, Value>(key: Key, value: Value | undefined) =>
  (value === undefined ? {} : { [key]: value }) as { [Name in Key]?: Value }

export function shownLine(line: QuarantineLine): ShownTrouble {
  const kind = kindOf(line.reason)
  return {
    severity: line.held ? 'held' : kind.severity,
    code: line.reason,
    device: line.device,
    name: printable(line.name),
    about: kind.about,
    advice: kind.advice,
    size: line.size,
    ...(line.sha256 ? { sha256: line.sha256 } : {}),
  }
}

/** What was verified in the last ten seconds, a second. */
export async function readRate(database: Postgres, id: string): Promise<MigrationView['rate']> {
  const { rows } = await database.query<{ devices: number; states: number; bytes: number }>(
    `SELECT (count(*) / seconds)::float8 AS devices, (coalesce(sum(states), 0) / seconds)::float8 AS states,
            (coalesce(sum(bytes), 0) / seconds)::float8 AS bytes
       FROM (SELECT greatest(1, least(10, extract(epoch FROM now() - created_at))) AS seconds
               FROM state_migrations WHERE id = $1) span,
            (SELECT states, bytes FROM state_migration_devices
              WHERE migration = $1 AND verified_at > now() - interval '10 s') recent
      GROUP BY seconds`,
    [id],
  )
  const row = rows[0]
  return {
    devicesPerSecond: Math.round(10 * (row?.devices ?? 0)) / 10,
    statesPerSecond: Math.round(row?.states ?? 0),
    bytesPerSecond: Math.round(row?.bytes ?? 0),
  }
}
