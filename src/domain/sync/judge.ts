import { sha256 } from '../../core/digest.ts'
import type { Queryable } from '../../platform/postgres/postgres.ts'
import type { Image, ReplicatedType } from '../../platform/replication/replicated.ts'

export type Types = ReadonlyMap<string, ReplicatedType>

export const typesByName = (types: readonly ReplicatedType[]): Types =>
  new Map(types.map((each) => [each.type, each]))

/** An object as the leader names it. */
export interface Reference {
  type: string
  id: string
  kind: 'upsert' | 'delete' | 'forget'
  hash: string | null
}

/** What this site has of an object. */
export interface Holding {
  /** What is there now; undefined: nothing. */
  image: (Image & { hash: string }) | undefined
  /** What its row in `changes` says is there; null: nothing, or no row. */
  expected: string | null
  /** Of its row; undefined: no row. */
  pos: number | undefined
  /** This site led once, and wrote it when nobody copied it any more: the leader's replaces it. */
  tail: boolean
}

export const keyOf = ({ type, id }: { type: string; id: string }): string => `${type} ${id}`

/** Objects as they are now, with what `changes` says of them, in the order of `objects`. */
export async function readHoldings(
  types: Types,
  objects: readonly { type: string; id: string }[],
  database: Queryable,
): Promise<Holding[]> {
  const rows = await readRows(objects, database)
  const images = await readImages(types, objects, database)
  return objects.map((object) => {
    const row = rows.get(keyOf(object))
    return {
      image: images.get(keyOf(object)),
      expected: row?.hash ?? null,
      pos: row?.pos,
      tail: row?.tail ?? false,
    }
  })
}

interface KnownRow extends Record<string, unknown> {
  type: string
  id: string
  pos: string | null
  hash: string | null
  tail: boolean
}

async function readRows(objects: readonly { type: string; id: string }[], database: Queryable) {
  const { rows } = await database.query<KnownRow>({
    name: 'sync-rows',
    text: `SELECT wanted.type, wanted.id, c.pos, CASE WHEN c.kind = 'upsert' THEN c.hash END AS hash,
         EXISTS (SELECT FROM sync_tail t
           WHERE t.type = wanted.type COLLATE "C" AND t.id = wanted.id COLLATE "C") AS tail
       FROM unnest($1::text[], $2::text[]) AS wanted (type, id)
       LEFT JOIN changes c ON c.type = wanted.type COLLATE "C" AND c.id = wanted.id COLLATE "C"`,
    values: [objects.map(({ type }) => type), objects.map(({ id }) => id)],
  })
  return new Map(
    rows.map((row) => [
      keyOf(row),
      { hash: row.hash, pos: row.pos === null ? undefined : Number(row.pos), tail: row.tail },
    ]),
  )
}

/** Content and hash of the objects that are there, by `keyOf`. Types that are unknown here have none. */
export async function readImages(
  types: Types,
  objects: readonly { type: string; id: string }[],
  database: Queryable,
): Promise<Map<string, Image & { hash: string }>> {
  const images = new Map<string, Image & { hash: string }>()
  for (const [name, group] of Map.groupBy(objects, ({ type }) => type)) {
    const found = await types.get(name)?.read(
      group.map(({ id }) => id),
      database,
    )
    for (const [id, image] of found ?? [])
      images.set(keyOf({ type: name, id }), { ...image, hash: sha256(image.content) })
  }
  return images
}

/**
 * `mismatch`: somebody wrote past the fence, and what was written would be lost. What is not there can not be lost, so
 * an object that somebody took away is sent again.
 */
export function judge(
  { kind, hash }: Reference,
  { image, expected, tail }: Holding,
): 'current' | 'send' | 'mismatch' {
  const found = image?.hash ?? null
  // Without a hash: it changes just now, and nobody can say.
  const isSame = kind === 'upsert' ? hash !== null && found === hash : found === null
  if (isSame) return 'current'
  if (found === null || found === expected || tail) return 'send'
  return 'mismatch'
}
