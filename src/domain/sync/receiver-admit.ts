import type { Queryable } from '../../platform/postgres/postgres.ts'
import { EPOCH_STALE, LINEAGE_FOREIGN, SITE_LEADS } from '../../platform/replication/errors.ts'
import { SITE_IS_NO_REPLICA, SYNC_CURSOR, SYNC_PROTOCOL, SYNC_TAIL_LEFT } from './protocol-errors.ts'
import { protocol, type Sender } from './wire.ts'

interface SiteRow extends Record<string, unknown> {
  role: 'alone' | 'leader' | 'replica'
  epoch: string
  lineage: string | null
}

/** @throws SYNC_PROTOCOL */
export function assertProtocol(theirs: number): void {
  if (theirs !== protocol) throw SYNC_PROTOCOL({ ours: protocol, theirs })
}

/** The epoch here goes along, so that who is refused knows how far behind it is. */
export const staleEpoch = (given: number, { role, epoch }: { role: string; epoch: number }) =>
  EPOCH_STALE(
    { epoch: given, role, current: epoch },
    { faults: [{ path: '/epoch', message: String(epoch) }] },
  )

/**
 * Whether the sender may write here. With a transaction's client the row stays as it is until the transaction ends: a
 * site that is being promoted waits for what is applied, and what comes later finds the new epoch.
 *
 * @throws SYNC_PROTOCOL, SITE_IS_NO_REPLICA, LINEAGE_FOREIGN, EPOCH_STALE, SITE_LEADS
 */
export async function admitLeader(sender: Sender, client: Queryable, locked: boolean): Promise<void> {
  assertProtocol(sender.protocol)
  const site = await readAdmitting(sender, client, locked)
  if (site.role === 'alone') throw SITE_IS_NO_REPLICA()
  assertLineage(sender, site)
  const epoch = Number(site.epoch)
  if (sender.epoch < epoch) throw staleEpoch(sender.epoch, { role: site.role, epoch })
  if (site.role === 'leader') throw SITE_LEADS({ current: epoch, epoch: sender.epoch, leader: 'the sender' })
  if (locked) await assertNoTail(client)
  if (sender.epoch > epoch && locked) {
    // The highest epoch seen stays, so that whoever led before is refused from now on.
    await client.query('UPDATE site SET epoch = $1, changed_at = now() WHERE epoch < $1', [sender.epoch])
  }
}

/** What only this site has is handed over before anything of the new leader is written over it. @throws SYNC_TAIL_LEFT */
async function assertNoTail(client: Queryable): Promise<void> {
  const { rows } = await client.query('SELECT FROM sync_tail LIMIT 1')
  if (rows.length > 0) throw SYNC_TAIL_LEFT({}, { retryAfterMs: 1_000 })
}

/**
 * The other way round: the sender led before, and brings what this leader never got. Takes no lock: what is written for it
 * meets the fence, which whoever ends this site's role holds, and takes before the row.
 *
 * @throws as `admitLeader`
 */
export async function admitFormerLeader(sender: Sender, client: Queryable): Promise<void> {
  assertProtocol(sender.protocol)
  const site = await readSite(client)
  assertLineage(sender, site)
  const epoch = Number(site.epoch)
  if (site.role !== 'leader') throw SITE_IS_NO_REPLICA()
  if (sender.epoch !== epoch) throw staleEpoch(sender.epoch, { role: site.role, epoch })
}

/** Bytes come from the site that leads, and before a candidate from the one that led. @throws as `admitLeader` */
export async function admitEither(sender: Sender, client: Queryable): Promise<void> {
  const site = await readSite(client)
  const isHeir = site.role === 'leader' && Number(site.epoch) === sender.epoch
  return isHeir ? admitFormerLeader(sender, client) : admitLeader(sender, client, false)
}

function assertLineage({ lineage }: { lineage: string }, site: SiteRow): void {
  if (site.lineage !== lineage) throw LINEAGE_FOREIGN({ here: site.lineage ?? 'none', there: lineage })
}

/**
 * A sender of a higher epoch is going to write the row, so he takes it for himself at once: two that share it first, and
 * then both write it, would wait for each other. The epoch never falls, so who shares it after the first look only reads.
 */
async function readAdmitting(sender: Sender, client: Queryable, locked: boolean): Promise<SiteRow> {
  const seen = await readSite(client)
  if (!locked) return seen
  return readSite(client, sender.epoch > Number(seen.epoch) ? 'FOR NO KEY UPDATE' : 'FOR SHARE')
}

async function readSite(
  client: Queryable,
  lock: '' | 'FOR SHARE' | 'FOR NO KEY UPDATE' = '',
): Promise<SiteRow> {
  const { rows } = await client.query<SiteRow>(
    `SELECT role, epoch, lineage::text AS lineage FROM site ${lock}`,
  )
  const [row] = rows
  if (!row) throw new Error('the row of this site is missing')
  return row
}

/** Waits for whoever applies to this shard. @throws SYNC_CURSOR when it stands elsewhere */
export async function lockCursor(
  client: Queryable,
  shard: number,
  from: number | undefined,
): Promise<number> {
  const { rows } = await client.query<{ pos: string }>(
    'SELECT pos FROM sync_cursors WHERE shard = $1 FOR UPDATE',
    [shard],
  )
  const cursor = Number(rows[0]?.pos ?? 0)
  if (from !== undefined && cursor !== from) {
    throw SYNC_CURSOR({ shard, cursor, from }, { faults: [{ path: '/cursor', message: String(cursor) }] })
  }
  return cursor
}

export async function readCursors(database: Queryable): Promise<number[]> {
  const { rows } = await database.query<{ pos: string }>('SELECT pos FROM sync_cursors ORDER BY shard')
  return rows.map(({ pos }) => Number(pos))
}
