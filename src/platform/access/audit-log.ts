import { toIso } from '../../core/clock.ts'
import type { AuditEntry, AuditLog } from '../access.ts'
import type { Postgres, Queryable } from '../postgres/postgres.ts'

interface AuditRow {
  id: string
  at: Date
  actor: string
  action: string
  subject: string
  details: Record<string, unknown> | null
}

export function createAuditLog(options: { postgres: Postgres }): AuditLog {
  const { postgres } = options
  return {
    record: (entry) => insertAudit(postgres, entry),
    list: async ({ limit, before, subject }) => {
      const { rows } = await postgres.query<AuditRow>(
        `SELECT id, at, actor, action, subject, details FROM audit_log
         WHERE ($2::bigint IS NULL OR id < $2::bigint) AND ($3::text IS NULL OR subject = $3)
         ORDER BY id DESC LIMIT $1`,
        [limit, before ?? null, subject ?? null],
      )
      return rows.map((row) => ({
        id: row.id,
        at: toIso(row.at.getTime()),
        actor: row.actor,
        action: row.action,
        subject: row.subject,
        ...(row.details ? { details: row.details } : {}),
      }))
    },
  }
}

/** With a transaction's client the entry stands and falls with what it tells of. */
export async function insertAudit(database: Queryable, entry: AuditEntry): Promise<void> {
  await database.query('INSERT INTO audit_log (actor, action, subject, details) VALUES ($1, $2, $3, $4)', [
    entry.actor,
    entry.action,
    entry.subject,
    entry.details ? JSON.stringify(entry.details) : null,
  ])
}
