import { sha256 } from '../../core/digest.ts'
import type { Client, Queryable } from '../../platform/postgres/postgres.ts'
import { INPUT_INVALID } from '../../platform/queues/errors.ts'
import type { Part } from '../../platform/replication/replicated.ts'
import { keyOf } from './judge.ts'

// Parts of an object that together do not fit into a request come ahead of it, and wait here.

interface Name {
  type: string
  id: string
}

/** Again is no harm. @throws INPUT_INVALID for bytes that are not what they are called */
export async function stageParts(
  database: Queryable,
  { type, id }: Name,
  parts: readonly Part[],
): Promise<void> {
  for (const part of parts) {
    if (sha256(part.bytes) !== part.sha256)
      throw INPUT_INVALID({ summary: 'a part has another sha256 than it says' })
    await database.query(
      'INSERT INTO sync_parts (type, id, sha256, bytes) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING',
      [type, id, part.sha256, part.bytes],
    )
  }
}

/** Sha256 of what waits, by `keyOf`. */
export async function stagedOf(
  database: Queryable,
  objects: readonly Name[],
): Promise<Map<string, string[]>> {
  const { rows } = await database.query<Name & { parts: string[] }>({
    name: 'sync-staged',
    text: `SELECT p.type, p.id, array_agg(p.sha256) AS parts FROM sync_parts p
       JOIN unnest($1::text[], $2::text[]) AS o (type, id)
         ON p.type = o.type COLLATE "C" AND p.id = o.id COLLATE "C" GROUP BY p.type, p.id`,
    values: [objects.map(({ type }) => type), objects.map(({ id }) => id)],
  })
  return new Map(rows.map((row) => [keyOf(row), row.parts]))
}

/** Takes them out, with the transaction. */
export async function takeStaged(client: Client, { type, id }: Name): Promise<Part[]> {
  const { rows } = await client.query<{ sha256: string; bytes: Buffer }>(
    'DELETE FROM sync_parts WHERE type = $1 AND id = $2 RETURNING sha256, bytes',
    [type, id],
  )
  return rows
}
