import type { Clock } from '../../../core/clock.ts'
import { messageOf } from '../../../core/errors.ts'
import type { Postgres } from '../../../platform/postgres/postgres.ts'
import type { BodyStore, StoredBody } from '../body-store.ts'
import type { SweepOptions, SweepReport } from '../upkeep.ts'

export interface SweepParts {
  stores: readonly BodyStore[]
  postgres: Postgres
  clock: Clock
  retentionMs: number
}

const dayMs = 86_400_000
const batch = 10_000

/**
 * Two phases with a day between them. The first condemns bodies that nothing refers to; a put or a get takes that
 * back. The second removes what is still condemned and still unreferenced, each body while its row is locked, so
 * that a put of the same bytes waits and then begins anew. Files without a row are removed by the same lock.
 *
 * Each plan is judged before anything is removed: a database that was restored to last week would make this week's
 * bodies orphans, and a fault in finding references would condemn everything.
 */
export async function sweep(parts: SweepParts, options: SweepOptions): Promise<SweepReport> {
  const report: SweepReport = { condemned: 0, removed: 0, orphans: {}, staged: 0, tripped: [], failed: [] }
  const given = {
    ...options,
    graceMs: options.graceMs ?? dayMs,
    retentionMs: options.retentionMs ?? parts.retentionMs,
  }
  await removeCondemned(parts, given, report)
  report.condemned = await condemn(parts, given)
  for (const store of parts.stores) {
    if (options.signal?.aborted) break
    try {
      report.staged += await store.sweepStaged(given.graceMs)
      report.orphans[store.name] = await removeOrphans(parts, store, given, report)
    } catch (error) {
      report.failed.push(messageOf(error))
    }
  }
  return report
}

type Graced = SweepOptions & { graceMs: number; retentionMs: number }

async function condemn(
  { postgres }: SweepParts,
  { retentionMs, graceMs, keepReferenced }: Graced,
): Promise<number> {
  const { rows } = await postgres.query<{ id: string }>(
    `SELECT id FROM bodies WHERE condemned_at IS NULL AND touched_at <= now() - $1 * interval '1 ms'
     UNION ALL
     SELECT id FROM bodies WHERE condemned_at IS NULL AND stores = '{}' AND touched_at <= now() - $2 * interval '1 ms'
     LIMIT $3`,
    [retentionMs, graceMs, batch],
  )
  const candidates = new Set(rows.map(({ id }) => id))
  if (candidates.size > 0) await keepReferenced(candidates)
  const { rowCount } = await postgres.query(
    `UPDATE bodies SET condemned_at = now()
     WHERE id = ANY ($1) AND condemned_at IS NULL AND touched_at <= now() - least($2::float8, $3::float8) * interval '1 ms'`,
    [[...candidates], retentionMs, graceMs],
  )
  return rowCount ?? 0
}

async function removeCondemned(parts: SweepParts, options: Graced, report: SweepReport): Promise<void> {
  const { postgres } = parts
  const { rows } = await postgres.query<{ id: string; total: number }>(
    `SELECT id, (SELECT count(*) FROM bodies)::int AS total FROM bodies
     WHERE condemned_at <= now() - $1 * interval '1 ms' ORDER BY condemned_at LIMIT $2`,
    [options.graceMs, batch],
  )
  const candidates = new Set(rows.map(({ id }) => id))
  if (candidates.size === 0) return
  await options.keepReferenced(candidates)
  const referenced = rows.filter(({ id }) => !candidates.has(id)).map(({ id }) => id)
  await postgres.query('UPDATE bodies SET condemned_at = NULL, touched_at = now() WHERE id = ANY ($1)', [
    referenced,
  ])
  const total = rows[0]?.total ?? 0
  if (!options.force && candidates.size > 100 && candidates.size > total / 4) {
    report.tripped.push(
      `${candidates.size} of ${total} bodies are unreferenced, which is more than a quarter`,
    )
    return
  }
  for (const id of candidates) {
    if (options.signal?.aborted) return
    try {
      if (await removeBody(parts, id, options.graceMs)) report.removed++
    } catch (error) {
      // A store that is away would fail for each body in the same words: the rest waits for the next sweep.
      report.failed.push(messageOf(error))
      return
    }
  }
}

async function removeBody({ stores, postgres }: SweepParts, id: string, graceMs: number): Promise<boolean> {
  return postgres.transaction(async (client) => {
    const { rowCount } = await client.query(
      `SELECT FROM bodies WHERE id = $1 AND condemned_at <= now() - $2 * interval '1 ms' FOR UPDATE`,
      [id, graceMs],
    )
    if (rowCount === 0) return false
    for (const store of stores) await store.remove(id)
    await client.query('DELETE FROM bodies WHERE id = $1', [id])
    return true
  })
}

/** Files without a row: of puts that died between their bytes and their row, or that were refused half-way. */
async function removeOrphans(
  { postgres, clock }: SweepParts,
  store: BodyStore,
  { graceMs, force, signal }: Graced,
  report: SweepReport,
): Promise<number> {
  const orphans: string[] = []
  let listed = 0
  let after: string | undefined
  for (let page = await store.list(after, 500); page.length > 0; page = await store.list(after, 500)) {
    listed += page.length
    after = page.at(-1)?.id
    orphans.push(...(await withoutRow(postgres, page, clock.now() - graceMs)))
    if (signal?.aborted) return 0
  }
  if (!force && orphans.length > Math.max(50, listed / 20)) {
    report.tripped.push(
      `${orphans.length} of ${listed} bodies in ${store.name} have no row; was the database restored?`,
    )
    return 0
  }
  let removed = 0
  for (const id of orphans) if (await removeOrphan(postgres, store, id)) removed++
  return removed
}

async function withoutRow(postgres: Postgres, page: StoredBody[], before: number): Promise<string[]> {
  const old = page.filter(({ modifiedAt }) => modifiedAt <= before).map(({ id }) => id)
  if (old.length === 0) return []
  const { rows } = await postgres.query<{ id: string }>('SELECT id FROM bodies WHERE id = ANY ($1)', [old])
  const known = new Set(rows.map(({ id }) => id))
  return old.filter((id) => !known.has(id))
}

/** The row that is made here and taken away again is the lock: a put of the same bytes waits at its announcement. */
async function removeOrphan(postgres: Postgres, store: BodyStore, id: string): Promise<boolean> {
  return postgres.transaction(async (client) => {
    const { rowCount } = await client.query(
      `INSERT INTO bodies (id, size, chunks) VALUES ($1, 0, '') ON CONFLICT (id) DO NOTHING`,
      [id],
    )
    if (rowCount === 0) return false
    const removed = await store.remove(id)
    await client.query('DELETE FROM bodies WHERE id = $1', [id])
    return removed
  })
}
