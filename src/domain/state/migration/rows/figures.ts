import type { Postgres } from '../../../../platform/postgres/postgres.ts'
import type { Progress, QuarantineLine } from '../migration.ts'

/** What a migration shows of itself. */
export interface Figures {
  progress(id: string): Promise<Progress>
  /** Held ones first, then by device. */
  quarantine(id: string, limit: number): Promise<QuarantineLine[]>
  /** Keys (keyText) of the device's states that were not moved. */
  heldKeys(id: string, device: string): Promise<Set<string>>
  /** Users that its devices' data name, for the links. */
  deviceUsers(id: string): AsyncIterable<{ device: string; users: Buffer[] }>
  /** Links that the target cannot hold. */
  heldLinks(id: string): Promise<Set<string>>
  pending(id: string): Promise<number>
  /** What the device had when it was moved (inspect/landmarks.ts). */
  landmarks(id: string, device: string): Promise<string[]>
  failed(id: string, limit: number): Promise<{ device: string; error: string }[]>
  /** Of the target when the device was last read back; undefined when it was never moved. */
  targetFingerprint(id: string, device: string): Promise<string | undefined>
}

const progressSql = `
  SELECT count(*)::int AS total,
         count(*) FILTER (WHERE status = 'moved')::int AS moved,
         count(*) FILTER (WHERE status = 'pending')::int AS pending,
         count(*) FILTER (WHERE status = 'failed')::int AS failed,
         count(*) FILTER (WHERE status = 'removed')::int AS removed,
         count(missed_at)::int AS missed,
         coalesce(sum(states) FILTER (WHERE status = 'moved'), 0)::float8 AS states,
         coalesce(sum(bytes) FILTER (WHERE status = 'moved'), 0)::float8 AS bytes,
         (SELECT count(*) FILTER (WHERE held)::int FROM state_migration_quarantine WHERE migration = $1) AS held,
         (SELECT count(*) FILTER (WHERE NOT held)::int FROM state_migration_quarantine WHERE migration = $1) AS remarks,
         (SELECT count(DISTINCT device) FILTER (WHERE held)::int FROM state_migration_quarantine
           WHERE migration = $1) AS held_devices,
         (SELECT count(*)::int FROM state_migration_engines
           WHERE migration = $1 AND seen_at > now() - interval '10 s') AS engines
    FROM state_migration_devices WHERE migration = $1`

interface ProgressRow {
  total: number
  moved: number
  pending: number
  failed: number
  removed: number
  missed: number
  states: number
  bytes: number
  held: number
  remarks: number
  held_devices: number
  engines: number
  [column: string]: unknown
}

export function createFigures(database: Postgres): Figures {
  return {
    progress: async (id) => {
      const { rows } = await database.query<ProgressRow>(progressSql, [id])
      return toProgress(rows[0] as ProgressRow)
    },
    quarantine: (id, limit) => readQuarantine(database, id, limit),
    heldKeys: async (id, device) => {
      const { rows } = await database.query<{ key: string }>(
        'SELECT key FROM state_migration_quarantine WHERE migration = $1 AND device = $2 AND held AND key IS NOT NULL',
        [id, device],
      )
      return new Set(rows.map((row) => row.key))
    },
    deviceUsers: (id) => readDeviceUsers(database, id),
    heldLinks: async (id) => {
      const { rows } = await database.query<{ device: string; name: Buffer }>(
        `SELECT device, name FROM state_migration_quarantine WHERE migration = $1 AND held AND key = 'link'`,
        [id],
      )
      return new Set(rows.map((row) => `${row.device} ${row.name.toString('latin1')}`))
    },
    landmarks: async (id, device) => {
      const { rows } = await database.query<{ landmarks: string[] }>(
        `SELECT landmarks FROM state_migration_devices WHERE migration = $1 AND device = $2`,
        [id, device],
      )
      return rows[0]?.landmarks ?? []
    },
    pending: async (id) => {
      const { rows } = await database.query<{ pending: number }>(
        `SELECT count(*)::int AS pending FROM state_migration_devices WHERE migration = $1 AND status = 'pending'`,
        [id],
      )
      return rows[0]?.pending ?? 0
    },
    failed: async (id, limit) => {
      const { rows } = await database.query<{ device: string; error: string }>(
        `SELECT device, coalesce(error, '') AS error FROM state_migration_devices
          WHERE migration = $1 AND status = 'failed' ORDER BY device LIMIT $2`,
        [id, limit],
      )
      return rows
    },
    targetFingerprint: async (id, device) => {
      const { rows } = await database.query<{ fingerprint: string | null }>(
        `SELECT target_fingerprint AS fingerprint FROM state_migration_devices WHERE migration = $1 AND device = $2`,
        [id, device],
      )
      return rows[0]?.fingerprint ?? undefined
    },
  }
}

const toProgress = (row: ProgressRow): Progress => ({
  devices: {
    total: row.total,
    moved: row.moved,
    pending: row.pending,
    failed: row.failed,
    removed: row.removed,
  },
  states: row.states,
  bytes: row.bytes,
  quarantine: { held: row.held, remarks: row.remarks, devices: row.held_devices },
  missed: row.missed,
  engines: row.engines,
})

async function readQuarantine(database: Postgres, id: string, limit: number): Promise<QuarantineLine[]> {
  const { rows } = await database.query<{
    device: string
    name: Buffer
    reason: string
    held: boolean
    size: string
    sha256: string | null
    key: string | null
  }>(
    `SELECT device, name, reason, held, size, sha256, key FROM state_migration_quarantine WHERE migration = $1
      ORDER BY held DESC, device, name LIMIT $2`,
    [id, limit],
  )
  return rows.map((row) => ({
    device: row.device,
    name: row.name,
    reason: row.reason,
    held: row.held,
    size: Number(row.size),
    sha256: row.sha256 ?? undefined,
    key: row.key ?? undefined,
  }))
}

async function* readDeviceUsers(
  database: Postgres,
  id: string,
): AsyncIterable<{ device: string; users: Buffer[] }> {
  for (let after = ''; ; ) {
    const { rows } = await database.query<{ device: string; users: Buffer[] }>(
      `SELECT device, users FROM state_migration_devices
        WHERE migration = $1 AND device > $2 AND status = 'moved' AND users <> '{}' ORDER BY device LIMIT 1000`,
      [id, after],
    )
    yield* rows
    const last = rows.at(-1)
    if (!last || rows.length < 1_000) return
    after = last.device
  }
}
