import type { Postgres } from '../../platform/postgres/postgres.ts'

/** What is taken out of the tables of replication, so that they do not grow for ever. */
export interface SyncPrune {
  /** One round, in bites. @returns rows removed */
  run(signal?: AbortSignal): Promise<{ tombstones: number; trash: number; deletes: number }>
}

export interface SyncPruneOptions {
  postgres: Postgres
  /** Rows of a bite. Default 1,000. */
  batch?: number
}

/** Of tombstones, and of what is in the trash. */
const keptFor = `interval '7 days'`
/** The fuse counts an hour. */
const deletesKeptFor = `interval '1 day'`

/**
 * On a leader a tombstone is kept until every replica has it, however old it is: one that a replica has not seen would
 * leave the object there for ever. A replica that has not said where it is counts as one that has nothing.
 */
const tombstones = `DELETE FROM changes WHERE (type, id) IN (
    SELECT type, id FROM changes c WHERE c.kind <> 'upsert' AND c.at < now() - ${keptFor}
      AND ((SELECT role FROM site) = 'replica' OR NOT EXISTS (
        SELECT FROM replicas r LEFT JOIN replica_cursors k ON k.replica = r.name AND k.shard = c.shard
        WHERE coalesce(k.pos, 0) < c.pos))
    ORDER BY c.at LIMIT $1)
  AND kind <> 'upsert' AND at < now() - ${keptFor}`

const trash = `DELETE FROM sync_trash WHERE n IN (
    SELECT n FROM sync_trash WHERE at < now() - ${keptFor} ORDER BY at LIMIT $1)`

const deletes = `DELETE FROM replica_deletes WHERE (replica, minute) IN (
    SELECT replica, minute FROM replica_deletes WHERE minute < now() - ${deletesKeptFor} LIMIT $1)`

/** Of large objects that were never sent in the end. */
const parts = `DELETE FROM sync_parts WHERE (type, id, sha256) IN (
    SELECT type, id, sha256 FROM sync_parts WHERE at < now() - interval '1 day' LIMIT $1)`

export function createSyncPrune({ postgres, batch = 1_000 }: SyncPruneOptions): SyncPrune {
  const empty = async (sql: string, signal: AbortSignal | undefined): Promise<number> => {
    let total = 0
    for (;;) {
      const { rowCount } = await postgres.query(sql, [batch])
      total += rowCount ?? 0
      if ((rowCount ?? 0) < batch || signal?.aborted) return total
    }
  }
  return {
    run: async (signal) => {
      await empty(parts, signal)
      return {
        tombstones: await empty(tombstones, signal),
        trash: await empty(trash, signal),
        deletes: await empty(deletes, signal),
      }
    },
  }
}
