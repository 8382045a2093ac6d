import type { Queryable } from '../../platform/postgres/postgres.ts'
import { keyOf, readImages, type Types } from './judge.ts'
import { SYNC_TYPE_UNKNOWN } from './protocol-errors.ts'
import type { RereadAnswer } from './wire.ts'

export interface Bite {
  type: string
  /** Null: from the first. */
  after: string | null
  limit: number
}

/**
 * Reads the next objects of a type anew and compares them with what `changes` says, both ways: an object without a row,
 * a row without an object, and content of another hash. `database` has to see one instant.
 *
 * @throws SYNC_TYPE_UNKNOWN
 */
export async function rereadBite(
  types: Types,
  { type: name, after, limit }: Bite,
  database: Queryable,
): Promise<RereadAnswer> {
  const type = types.get(name)
  if (!type) throw SYNC_TYPE_UNKNOWN({ type: name })
  const ids = await type.scan(after ?? undefined, limit, database)
  const last = ids.at(-1)
  const next = ids.length < limit ? null : (last ?? null)
  const expected = await expectedHashes(database, { type: name, after, upTo: next })
  const all = [...new Set([...ids, ...expected.keys()])].map((id) => ({ type: name, id }))
  const images = await readImages(types, all, database)
  const differing = all.flatMap((object) => {
    const wanted = expected.get(object.id) ?? null
    const found = images.get(keyOf(object))?.hash ?? null
    return wanted === found ? [] : [{ ...object, expected: wanted, found }]
  })
  return { objects: all.length, next, differing }
}

async function expectedHashes(
  database: Queryable,
  { type, after, upTo }: { type: string; after: string | null; upTo: string | null },
): Promise<Map<string, string>> {
  const { rows } = await database.query<{ id: string; hash: string }>(
    `SELECT id, hash FROM changes WHERE type = $1 AND kind = 'upsert'
       AND ($2::text IS NULL OR id > $2::text COLLATE "C") AND ($3::text IS NULL OR id <= $3::text COLLATE "C")`,
    [type, after, upTo],
  )
  return new Map(rows.map(({ id, hash }) => [id, hash]))
}
