import {
  defaultOptions,
  type Migration,
  type MigrationOptions,
  type ScanSummary,
  type Storm,
} from '../migration.ts'

const iso = (column: string): string =>
  `to_char(${column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS ${column}`
const age = (column: string, name: string): string =>
  `(extract(epoch FROM clock_timestamp() - ${column}) * 1000)::float8 AS ${name}`

/** All that a migration shows, with every duration by the database's clock. */
export const migrationColumns = `
  id, source_url, target_url, phase, wanted, paused, options, error, note, scan, round, links, storm, admitted, gate_ms,
  back_devices, ${age('gate_closed_at', 'gate_closed_for')}, ${age('cut_over_at', 'watched')},
  ${iso('created_at')}, ${iso('cut_over_at')}, ${iso('finished_at')}`

export interface MigrationRow {
  id: string
  source_url: string
  target_url: string
  phase: Migration['phase']
  wanted: Migration['wanted'] | null
  paused: boolean
  options: Partial<MigrationOptions>
  error: Migration['error'] | null
  note: string | null
  scan: ScanSummary | null
  round: number
  links: number
  storm: Storm | null
  admitted: number | null
  gate_ms: number | null
  back_devices: number | null
  gate_closed_for: number | null
  watched: number | null
  created_at: string
  cut_over_at: string | null
  finished_at: string | null
  [column: string]: unknown
}

export function toMigration(row: MigrationRow): Migration {
  return {
    id: row.id,
    sourceUrl: row.source_url,
    targetUrl: row.target_url,
    phase: row.phase,
    wanted: row.wanted ?? undefined,
    paused: row.paused,
    options: { ...defaultOptions, ...row.options },
    error: row.error ?? undefined,
    note: row.note ?? undefined,
    scan: row.scan ?? undefined,
    round: row.round,
    links: row.links,
    storm: row.storm ?? undefined,
    admitted: row.admitted ?? undefined,
    gateClosedForMs: row.gate_closed_for ?? undefined,
    gateMs: row.gate_ms ?? undefined,
    watchedMs: row.watched ?? undefined,
    backDevices: row.back_devices ?? undefined,
    createdAt: row.created_at,
    cutOverAt: row.cut_over_at ?? undefined,
    finishedAt: row.finished_at ?? undefined,
  }
}
