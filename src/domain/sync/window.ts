import type { Queryable } from '../../platform/postgres/postgres.ts'

/** A row of the change log. */
export interface ChangeRow {
  type: string
  id: string
  pos: number
  kind: 'upsert' | 'delete' | 'forget'
  hash: string | null
  account: string | null
}

interface SelectedRow extends Omit<ChangeRow, 'pos'>, Record<string, unknown> {
  pos: string
}

const rowOf = ({ type, id, pos, kind, hash, account }: SelectedRow): ChangeRow => ({
  type,
  id,
  pos: Number(pos),
  kind,
  hash: kind === 'upsert' ? hash : null,
  account,
})

export interface Span {
  shard: number
  /** Exclusive. */
  from: number
  /** Inclusive. */
  to: number
}

/** Rows of a shard in their order. */
export async function readWindow(
  database: Queryable,
  { shard, from, to }: Span,
  limit: number,
): Promise<ChangeRow[]> {
  const { rows } = await database.query<SelectedRow>({
    name: 'sync-window',
    text: `SELECT type, id, pos, kind, hash, account FROM changes
       WHERE shard = $1 AND pos > $2 AND pos <= $3 ORDER BY pos LIMIT $4`,
    values: [shard, from, to, limit],
  })
  return rows.map(rowOf)
}

/** The rows of these objects, with their shards; those that the log does not know are left out. */
export async function readRowsOf(
  database: Queryable,
  objects: readonly { type: string; id: string }[],
): Promise<(ChangeRow & { shard: number })[]> {
  const { rows } = await database.query<SelectedRow & { shard: number }>(
    `SELECT c.type, c.id, c.shard, c.pos, c.kind, c.hash, c.account
     FROM unnest($1::text[], $2::text[]) AS o (type, id)
     JOIN changes c ON c.type = o.type COLLATE "C" AND c.id = o.id COLLATE "C" ORDER BY c.shard, c.pos`,
    [objects.map(({ type }) => type), objects.map(({ id }) => id)],
  )
  return rows.map((row) => ({ ...rowOf(row), shard: row.shard }))
}
