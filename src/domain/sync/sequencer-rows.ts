import type { Client } from '../../platform/postgres/postgres.ts'

// These statements are planned anew each time: a plan of when the tables were nearly empty would read all of them.

export interface ObjectName {
  type: string
  id: string
}

/** An object as it was read, to be put into the change log. */
export interface Numbered extends ObjectName {
  kind: 'upsert' | 'delete' | 'forget'
  /** Of its content, hex; null when it is gone. */
  hash: string | null
  account: string | null
}

/**
 * The oldest pending rows of a shard are taken out, each object once; by an array, since a join might read all of the
 * table. Of a site that does not lead nothing is taken: its role is read in this statement, after the lock of the head,
 * which whoever changes the role holds as well.
 */
export async function takePending(
  client: Client,
  shard: number,
  limit: number,
): Promise<{ rows: number; objects: ObjectName[] }> {
  const { rows } = await client.query<ObjectName & { times: number }>({
    text: `WITH taken AS (
        DELETE FROM change_pending WHERE shard = $1 AND n = ANY (ARRAY(
          SELECT n FROM change_pending WHERE shard = $1 AND (SELECT role FROM site) = 'leader' ORDER BY n LIMIT $2))
        RETURNING type, id, n)
      SELECT type, id, count(*)::int AS times FROM taken GROUP BY type, id ORDER BY min(n)`,
    values: [shard, limit],
  })
  const objects = rows.map(({ type, id }) => ({ type, id }))
  return { rows: rows.reduce((sum, { times }) => sum + times, 0), objects }
}

/** Back to the end of what is pending. */
export async function postpone(client: Client, shard: number, objects: ObjectName[]): Promise<void> {
  if (objects.length === 0) return
  await client.query(
    'INSERT INTO change_pending (shard, type, id) SELECT $1, * FROM unnest($2::text[], $3::text[])',
    [shard, objects.map(({ type }) => type), objects.map(({ id }) => id)],
  )
}

/**
 * Gives new positions to those that are not as the log has them; one that is gone and was never there gets none.
 * @returns the new head
 */
export async function number(
  client: Client,
  { shard, head }: { shard: number; head: number },
  objects: Numbered[],
): Promise<number> {
  const { rows } = await client.query<{ head: string }>({
    text: numberText,
    values: [
      shard,
      head,
      objects.map(({ type }) => type),
      objects.map(({ id }) => id),
      objects.map(({ kind }) => kind),
      objects.map(({ hash }) => hash),
      objects.map(({ account }) => account),
    ],
  })
  return Number(rows[0]?.head ?? head)
}

const numberText = `
  WITH read AS (
    SELECT * FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[]) WITH ORDINALITY
      AS r (type, id, kind, hash, account, place)
  ), changed AS (
    SELECT r.*, row_number() OVER (ORDER BY r.place) AS nth
    FROM read r LEFT JOIN changes c ON c.type = r.type COLLATE "C" AND c.id = r.id COLLATE "C"
    WHERE CASE WHEN r.kind = 'upsert' THEN c.hash IS DISTINCT FROM r.hash OR c.kind <> 'upsert'
      ELSE c.kind = 'upsert' END
  ), written AS (
    INSERT INTO changes (type, id, shard, pos, epoch, kind, hash, account)
    SELECT type, id, $1, $2::bigint + nth, (SELECT epoch FROM site), kind, hash, account FROM changed
    ON CONFLICT (type, id) DO UPDATE SET shard = excluded.shard, pos = excluded.pos, epoch = excluded.epoch,
      kind = excluded.kind, hash = excluded.hash, at = now(),
      account = CASE WHEN excluded.kind = 'upsert' THEN excluded.account ELSE changes.account END
    RETURNING pos
  )
  UPDATE change_heads SET pos = $2::bigint + (SELECT count(*) FROM written), at = now() WHERE shard = $1
  RETURNING pos AS head`
