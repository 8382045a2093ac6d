import type { Client, Postgres, Queryable } from '../../../platform/postgres/postgres.ts'
import { MIGRATION_NOT_FOUND, MIGRATION_PHASE_WRONG } from '../errors.ts'
import type { DeviceMark, DeviceRow, Migration, MigrationOptions, Phase, Wanted } from './migration.ts'
import { claimRows, keepAlive, writeMarks } from './rows/devices.ts'
import { createLeadership } from './rows/leadership.ts'
import { type MigrationRow, migrationColumns, toMigration } from './rows/migration-row.ts'

/** The rows of migrations, as docs/protocols/state-migration.md has them. */
export interface Migrations {
  create(migration: NewMigration): Promise<Migration>
  /** @throws MIGRATION_NOT_FOUND */
  get(id: string): Promise<Migration>
  /** Newest first. */
  list(limit: number): Promise<Migration[]>
  /** The newest one between the two stores that is not over. */
  findOpen(sourceUrl: string, targetUrl: string): Promise<Migration | undefined>
  /** Takes the lead or makes sure of it. @returns the migration when this engine leads */
  lead(id: string, engine: string): Promise<Migration | undefined>
  /** Gives the lead up. */
  unlead(id: string, engine: string): Promise<void>
  /** What an operator asks for. @throws MIGRATION_PHASE_WRONG */
  request(id: string, wanted: Wanted): Promise<Migration>
  setPaused(id: string, paused: boolean): Promise<Migration>
  setOptions(id: string, options: Partial<MigrationOptions>): Promise<void>
  /** Changes the phase, or columns within it, if it is still `from`. @returns whether it was */
  advance(id: string, from: Phase[], change: Change): Promise<boolean>
  /** Pauses it with the reason for people. */
  halt(id: string, error: { code: string; message: string }): Promise<void>
  /**
   * Locks the next pending devices, lets `work` copy them and writes their marks, all in one transaction: a killed
   * engine holds nothing.
   *
   * @returns false when there is none to be had now
   */
  claim(id: string, most: number, work: CopyWork): Promise<boolean>
  seen(id: string, engine: string): Promise<number>
  /** Forgets the migration. */
  remove(id: string): Promise<void>
  readonly database: Postgres
}

export interface NewMigration {
  id: string
  sourceUrl: string
  targetUrl: string
  options: MigrationOptions
  /** Only look, and write nothing anywhere. */
  dryRun?: boolean
}

/** Copies the devices and says of each how it went. */
export type CopyWork = (rows: DeviceRow[]) => Promise<Map<string, DeviceMark>>

/** Columns to set; SQL expressions stand where the value is of the database's clock. */
export interface Change {
  phase?: Phase
  wanted?: null
  note?: string | null
  error?: null
  paused?: boolean
  links?: number
  storm?: unknown
  scan?: unknown
  admitted?: number | null
  backDevices?: number
  stamps?: (
    | 'gate_closed_at'
    | 'drained_at'
    | 'verified_at'
    | 'cut_over_at'
    | 'rolled_back_at'
    | 'finished_at'
    | 'storm_at'
    | 'admitted_at'
  )[]
  clear?: ('gate_closed_at' | 'drained_at' | 'verified_at')[]
  /** Writes how long the gate has been closed. */
  stopGate?: boolean
  nextRound?: boolean
}

/** In which phases what may be asked for. */
export const allowedPhases: Record<Wanted, Phase[]> = {
  'cut-over': ['copying', 'ready'],
  'roll-back': ['watching', 'done'],
  cancel: ['copying', 'ready'],
  finish: ['watching'],
}

export function createMigrations(database: Postgres): Migrations {
  const leadership = createLeadership(database)
  const get = async (id: string): Promise<Migration> => {
    const migration = await selectOne(database, 'id = $1', [id])
    if (!migration) throw MIGRATION_NOT_FOUND({ id })
    return migration
  }

  return {
    database,
    get,
    create: async ({ id, sourceUrl, targetUrl, options, dryRun = false }) => {
      await database.query(
        'INSERT INTO state_migrations (id, source_url, target_url, options, phase) VALUES ($1, $2, $3, $4, $5)',
        [id, sourceUrl, targetUrl, JSON.stringify(options), dryRun ? 'scanning' : 'copying'],
      )
      return get(id)
    },
    list: (limit) => select(database, `true ORDER BY created_at DESC LIMIT ${Math.trunc(limit)}`, []),
    findOpen: (sourceUrl, targetUrl) =>
      selectOne(
        database,
        `source_url = $1 AND target_url = $2 AND phase NOT IN ('scanning', 'scanned', 'rolled-back', 'cancelled')
         ORDER BY created_at DESC LIMIT 1`,
        [sourceUrl, targetUrl],
      ),
    lead: async (id, engine) => ((await leadership.hold(id, engine)) ? get(id) : undefined),
    unlead: (id, engine) => leadership.drop(id, engine),
    request: (id, wanted) => request(database, get, id, wanted),
    setPaused: async (id, paused) => {
      await get(id)
      await database.query(
        `UPDATE state_migrations SET paused = $2, error = CASE WHEN $2 THEN error END, updated_at = now() WHERE id = $1`,
        [id, paused],
      )
      return get(id)
    },
    setOptions: async (id, options) => {
      await database.query(
        'UPDATE state_migrations SET options = (options::jsonb || $2::jsonb)::json WHERE id = $1',
        [id, JSON.stringify(options)],
      )
    },
    advance: (id, from, change) => advance(database, id, from, change),
    halt: async (id, error) => {
      await database.query(
        'UPDATE state_migrations SET paused = true, error = $2, updated_at = now() WHERE id = $1',
        [id, JSON.stringify(error)],
      )
    },
    claim: (id, most, work) => claim(database, id, most, work),
    seen: (id, engine) => seen(database, id, engine),
    remove: async (id) => void (await database.query('DELETE FROM state_migrations WHERE id = $1', [id])),
  }
}

async function select(database: Queryable, where: string, values: unknown[]): Promise<Migration[]> {
  const { rows } = await database.query<MigrationRow>(
    `SELECT ${migrationColumns} FROM state_migrations WHERE ${where}`,
    values,
  )
  return rows.map(toMigration)
}

const selectOne = async (database: Queryable, where: string, values: unknown[]) =>
  (await select(database, where, values))[0]

async function request(
  database: Postgres,
  get: (id: string) => Promise<Migration>,
  id: string,
  wanted: Wanted,
): Promise<Migration> {
  const { rowCount } = await database.query(
    `UPDATE state_migrations SET wanted = $2, paused = false, error = NULL, note = NULL, finished_at = NULL,
            updated_at = now()
      WHERE id = $1 AND phase = ANY($3)`,
    [id, wanted, allowedPhases[wanted]],
  )
  const migration = await get(id)
  if (rowCount === 0) {
    const phases = allowedPhases[wanted].join(' or ')
    throw MIGRATION_PHASE_WRONG({ id, phase: migration.phase, action: wanted, wanted: phases })
  }
  return migration
}

async function advance(database: Postgres, id: string, from: Phase[], change: Change): Promise<boolean> {
  const sets = ['updated_at = now()']
  const values: unknown[] = [id, from]
  const set = (column: string, value: unknown): void => {
    if (value !== undefined) sets.push(`${column} = $${values.push(value)}`)
  }
  set('phase', change.phase)
  set('wanted', change.wanted)
  set('note', change.note)
  set('error', change.error)
  set('paused', change.paused)
  set('links', change.links)
  set('storm', change.storm === undefined ? undefined : JSON.stringify(change.storm))
  set('scan', change.scan === undefined ? undefined : JSON.stringify(change.scan))
  set('admitted', change.admitted)
  set('back_devices', change.backDevices)
  for (const column of change.stamps ?? []) sets.push(`${column} = now()`)
  for (const column of change.clear ?? []) sets.push(`${column} = NULL`)
  if (change.stopGate) sets.push('gate_ms = extract(epoch FROM clock_timestamp() - gate_closed_at) * 1000')
  if (change.nextRound) sets.push('round = round + 1')
  const { rowCount } = await database.query(
    `UPDATE state_migrations SET ${sets.join(', ')} WHERE id = $1 AND phase = ANY($2)`,
    values,
  )
  return rowCount === 1
}

async function claim(database: Postgres, id: string, most: number, work: CopyWork): Promise<boolean> {
  return database.transaction(async (client: Client) => {
    const rows = await claimRows(client, id, most)
    if (rows.length === 0) return false
    const beat = keepAlive(client)
    try {
      const marks = await work(rows)
      await beat.stop()
      await writeMarks(
        client,
        id,
        marks,
        new Set(rows.filter((row) => row.sourceFingerprint).map((row) => row.device)),
      )
    } finally {
      await beat.stop()
    }
    return true
  })
}

/** Notes that an engine is at work. @returns how many are */
async function seen(database: Postgres, id: string, engine: string): Promise<number> {
  const { rows } = await database.query<{ engines: number }>(
    `WITH me AS (
       INSERT INTO state_migration_engines (migration, engine) VALUES ($1, $2)
       ON CONFLICT (migration, engine) DO UPDATE SET seen_at = now())
     SELECT count(*)::int AS engines FROM state_migration_engines
      WHERE migration = $1 AND engine <> $2 AND seen_at > now() - interval '5 s'`,
    [id, engine],
  )
  return (rows[0]?.engines ?? 0) + 1
}
