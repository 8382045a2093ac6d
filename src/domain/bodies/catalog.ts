import { createBatcher } from '../../core/batcher.ts'
import type { Postgres, Queryable } from '../../platform/postgres/postgres.ts'
import type { BodyDigest } from './chunk-digests.ts'
import { BODY_OVERLOADED } from './errors.ts'
import { claimDue, fulfil, postpone, wishAll, wishOf, withdraw } from './repair-rows.ts'

export interface BodyRow extends BodyDigest {
  /** Names of the stores that hold a durable copy. */
  stores: string[]
  createdAt: Date
  /** A sweep means to remove it, unless somebody asks for it meanwhile. */
  condemned: boolean
}

/**
 * The rows of bodies. A put announces its row before a byte becomes visible and records the copies afterwards;
 * a sweep removes bytes only while it holds the row. So whatever is visible has a row, and a sweep and a put of
 * the same bytes wait for each other at the row instead of undoing each other in the stores.
 */
export interface Catalog {
  /**
   * The row, or undefined when there is none whose copies were recorded.
   * @throws BODY_OVERLOADED
   */
  find(id: string): Promise<BodyRow | undefined>
  /** Makes the row, or revives one that a sweep had condemned. */
  announce(digest: BodyDigest): Promise<void>
  /** Takes a condemnation back. */
  revive(id: string): Promise<void>
  /** Records durable copies, and wishes for a repair in the same transaction when a reason is given. */
  record(id: string, stores: string[], repairReason?: string): Promise<void>
  /** Wishes for a repair. */
  wish(id: string, reason: string): Promise<void>
  /** The wish as it stands, to be given back to `fulfil` or `postpone`. */
  wishOf(id: string): Promise<string | undefined>
  /** Takes stores from the row and adds others, and ends the wish unless somebody wished again meanwhile. */
  fulfil(id: string, change: CopyChange): Promise<void>
  /**
   * Takes one store from the row and runs `remove` under the row's lock. Not for an hour after a put: one that has
   * announced itself may be about to count on that very copy. False: not now.
   */
  withdraw(id: string, store: string, remove: () => Promise<unknown>): Promise<boolean>
  /** Records why a repair failed; it is due again after a growing pause. */
  postpone(id: string, wish: string, error: string): Promise<void>
  /** Wishes that are due, the oldest first, each for this caller alone for the next `leaseMs`. */
  claimDue(limit: number, leaseMs: number): Promise<string[]>
}

export interface CopyChange {
  wish: string | undefined
  added: string[]
  removed: string[]
  /** Every copy was read and found right. */
  checked: boolean
}

interface Recording {
  id: string
  stores: string[]
  repairReason: string | undefined
}

/** Rows that may be asked for at once: a database that is slow must not make a queue without end. */
const maxFinding = 2_000

export function createCatalog(postgres: Postgres): Catalog {
  // Concurrent puts share their statements: beside two flushed files, a round trip each would cost as much again.
  const announcing = createBatcher<BodyDigest, void>({
    run: (digests) => announceAll(postgres, digests).then(() => Array(digests.length).fill(undefined)),
    maxItems: 200,
    concurrency: 2,
  })
  const recording = createBatcher<Recording, void>({
    run: (items) => recordAll(postgres, items).then(() => Array(items.length).fill(undefined)),
    maxItems: 200,
    concurrency: 2,
  })
  const finding = createBatcher<string, BodyRow | undefined>({
    run: (ids) => findAll(postgres, ids),
    maxItems: 100,
    concurrency: 4,
  })
  return {
    find: async (id) => {
      if (finding.pending >= maxFinding) {
        throw BODY_OVERLOADED({ waiting: finding.pending }, { retryAfterMs: 1_000 })
      }
      return finding.add(id)
    },
    announce: (digest) => announcing.add(digest),
    revive: async (id) => {
      await postgres.query('UPDATE bodies SET condemned_at = NULL, touched_at = now() WHERE id = $1', [id])
    },
    record: (id, stores, repairReason) => recording.add({ id, stores, repairReason }),
    wish: (id, reason) => wishAll(postgres, [{ id, reason }]),
    wishOf: (id) => wishOf(postgres, id),
    fulfil: (id, change) => fulfil(postgres, id, change),
    withdraw: (id, store, remove) => withdraw(postgres, { id, store }, remove),
    postpone: (id, wish, error) => postpone(postgres, { id, wish, error }),
    claimDue: (limit, leaseMs) => claimDue(postgres, limit, leaseMs),
  }
}

async function findAll(database: Queryable, ids: string[]): Promise<(BodyRow | undefined)[]> {
  const { rows } = await database.query<{
    id: string
    size: string
    chunks: Buffer
    stores: string[]
    created_at: Date
    condemned: boolean
  }>({
    name: 'bodies-find',
    text: `SELECT id, size, chunks, stores, created_at, condemned_at IS NOT NULL AS condemned
      FROM bodies WHERE id = ANY ($1) AND stores <> '{}'`,
    values: [ids],
  })
  const byId = new Map(
    rows.map((row) => [row.id, { ...row, size: Number(row.size), createdAt: row.created_at }]),
  )
  return ids.map((id) => byId.get(id))
}

/** In the order of their ids, so that two batches which share rows cannot hold up each other for ever. */
async function announceAll(database: Queryable, digests: BodyDigest[]): Promise<void> {
  const distinct = [...new Map(digests.map((digest) => [digest.id, digest])).values()]
  await database.query({
    name: 'bodies-announce',
    text: `INSERT INTO bodies (id, size, chunks)
      SELECT * FROM unnest($1::text[], $2::bigint[], $3::bytea[]) AS given (id, size, chunks) ORDER BY id
      ON CONFLICT (id) DO UPDATE SET touched_at = now(), condemned_at = NULL`,
    values: [
      distinct.map(({ id }) => id),
      distinct.map(({ size }) => size),
      distinct.map(({ chunks }) => chunks),
    ],
  })
}

async function recordAll(postgres: Postgres, items: Recording[]): Promise<void> {
  const merged = mergeById(items)
  const wishes = merged.flatMap(({ id, repairReason: reason }) =>
    reason === undefined ? [] : [{ id, reason }],
  )
  const update = (database: Queryable) =>
    database.query({
      name: 'bodies-record',
      text: `WITH locked AS (
          SELECT bodies.id, given.stores FROM bodies
          JOIN unnest($1::text[], $2::text[]) AS given (id, stores) ON given.id = bodies.id
          ORDER BY bodies.id FOR UPDATE OF bodies)
        UPDATE bodies SET touched_at = now(), stores = ARRAY(
          SELECT DISTINCT unnest(bodies.stores || string_to_array(locked.stores, E'\\n')) ORDER BY 1)
        FROM locked WHERE bodies.id = locked.id`,
      // Arrays of arrays must be rectangular in Postgres; names hold no line break.
      values: [merged.map(({ id }) => id), merged.map(({ stores }) => stores.join('\n'))],
    })
  if (wishes.length === 0) return void (await update(postgres))
  await postgres.transaction(async (client) => {
    await update(client)
    await wishAll(client, wishes)
  })
}

function mergeById(items: Recording[]): Recording[] {
  const byId = new Map<string, Recording>()
  for (const item of items) {
    const before = byId.get(item.id)
    byId.set(item.id, {
      id: item.id,
      stores: [...(before?.stores ?? []), ...item.stores],
      repairReason: item.repairReason ?? before?.repairReason,
    })
  }
  return [...byId.values()].sort((a, b) => (a.id < b.id ? -1 : 1))
}
