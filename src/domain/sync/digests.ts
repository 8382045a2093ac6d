import type { Queryable } from '../../platform/postgres/postgres.ts'

/**
 * What two sites compare instead of their objects: docs/protocols/sync.md, section 5. From `changes` alone; only digests of
 * the same position are comparable, so whoever asks holds the head (leader) or the cursor (replica).
 */
export interface Digests {
  /** Of the 256 buckets, as decimal numbers below 2^64. */
  of(shard: number, database: Queryable): Promise<string[]>
  /** What is in a bucket, by type and id. */
  entries(
    shard: number,
    bucket: number,
    database: Queryable,
  ): Promise<{ type: string; id: string; hash: string }[]>
}

/** No type has a slash, and a hash has 64 digits: two different objects never give one text. */
const name = `c.type || '/' || c.id`
const bucketOf = `get_byte(sha256(convert_to(${name}, 'UTF8')), 0)`
/** The first 8 bytes, as a number with a sign: the sum is the same mod 2^64. */
const number = `('x' || left(encode(sha256(convert_to(${name} || '/' || c.hash, 'UTF8')), 'hex'), 16))::bit(64)::bigint`

const buckets = 256
const span = 2n ** 64n

export function createDigests(): Digests {
  return {
    of: async (shard, database) => {
      const { rows } = await database.query<{ bucket: number; sum: string }>({
        name: 'sync-digests',
        text: `SELECT ${bucketOf} AS bucket, sum(${number})::text AS sum
          FROM changes c WHERE c.shard = $1 AND c.kind = 'upsert' GROUP BY 1`,
        values: [shard],
      })
      const sums = new Map(rows.map(({ bucket, sum }) => [bucket, sum]))
      return Array.from({ length: buckets }, (_each, bucket) =>
        (((BigInt(sums.get(bucket) ?? '0') % span) + span) % span).toString(),
      )
    },
    entries: async (shard, bucket, database) => {
      const { rows } = await database.query<{ type: string; id: string; hash: string }>({
        name: 'sync-digest-entries',
        text: `SELECT c.type, c.id, c.hash FROM changes c
          WHERE c.shard = $1 AND c.kind = 'upsert' AND ${bucketOf} = $2 ORDER BY c.type, c.id`,
        values: [shard, bucket],
      })
      return rows
    },
  }
}
