import type { Client } from '../postgres/postgres.ts'
import {
  EPOCH_STALE,
  LINEAGE_FOREIGN,
  SITE_IN_USE,
  SITE_IS_REPLICA,
  SITE_LEADS,
  SITE_NOT_EMPTY,
  SITE_NOT_LEADER,
  SYNC_BEHIND,
} from './errors.ts'
import type { SiteState } from './site.ts'
import { lockState, readState, takeFence } from './site-rows.ts'

// What site.ts says of each. All take their locks in one order, which is also that of those who number and of those who
// apply: the fence, the site's row, the heads, the cursors.

const startCapture = 'SELECT change_capture(true)'
const writeSentinels = `
  INSERT INTO sync_sentinels (shard, lineage) SELECT shard, $1::uuid FROM generate_series(0, 15) AS shard
  ON CONFLICT (shard) DO UPDATE SET lineage = excluded.lineage`

export async function becomeLeader(client: Client): Promise<SiteState> {
  const state = await lockState(client)
  if (state.role === 'leader') return state
  if (state.role === 'replica') throw isReplica(state, 'having replicas of its own')
  // Waits for those who write now: what they wrote is there when the seeding begins, what comes later is captured.
  await client.query(startCapture)
  await client.query(
    `UPDATE site SET role = 'leader', lineage = gen_random_uuid(), leader = NULL, changed_at = now()`,
  )
  await client.query('DELETE FROM sync_seeds')
  const leading = await readState(client)
  await client.query(writeSentinels, [leading.lineage])
  return leading
}

export async function becomeAlone(client: Client): Promise<SiteState> {
  const before = await readState(client)
  if (before.role === 'alone') return before
  await assertUnused(client, before)
  // Shorter than deadlock_timeout: whoever writes into several tables is never the one that is refused.
  await client.query(`SET LOCAL lock_timeout = '500ms'`)
  // Before the row, which who writes with one snapshot takes after its table. Waits for those who write now.
  await client.query('SELECT change_capture(false)')
  const state = await lockState(client)
  await assertUnused(client, state)
  if (state.role === 'alone') return state
  await client.query('SELECT FROM change_heads ORDER BY shard FOR UPDATE')
  await client.query(
    'TRUNCATE change_pending, changes, sync_sentinels, sync_seeds, sync_tail, sync_parts, replica_cursors',
  )
  await client.query('UPDATE change_heads SET pos = 0, at = now()')
  await client.query('UPDATE sync_cursors SET pos = 0, at = now()')
  await client.query(`UPDATE site SET role = 'alone', lineage = NULL, leader = NULL, changed_at = now()`)
  return readState(client)
}

/** @throws SITE_IS_REPLICA, SITE_IN_USE */
async function assertUnused(client: Client, state: SiteState): Promise<void> {
  if (state.role === 'replica') throw isReplica(state, 'leaving')
  if (state.role === 'alone') return
  const { rows } = await client.query<{ name: string | null; target: string | null }>(
    `SELECT (SELECT min(name) FROM replicas) AS name,
       (SELECT mode || ' to ' || target FROM fail_overs WHERE finished_at IS NULL) AS target`,
  )
  const { name = null, target = null } = rows[0] ?? {}
  if (name !== null)
    throw SITE_IN_USE({ why: `${name} is its replica; remove it first (\`baton sync remove\`)` })
  if (target !== null) throw SITE_IN_USE({ why: `a fail-over is under way (${target})` })
  if (state.intake !== 'open') throw SITE_IN_USE({ why: `its intake is ${state.intake}; it has to be open` })
}

interface Following {
  lineage: string
  epoch: number
  leader: string
}

export async function becomeReplica(client: Client, to: Following): Promise<SiteState> {
  const state = await lockState(client)
  if (state.role === 'alone') return joinLineage(client, to)
  assertLineage(state, to.lineage)
  const { epoch, leader } = to
  if (epoch < state.epoch || (state.role === 'leader' && epoch === state.epoch)) throw stale(state, epoch)
  if (state.role === 'leader') throw SITE_LEADS({ current: state.epoch, epoch, leader })
  if (epoch !== state.epoch || leader !== state.leader) {
    await client.query('UPDATE site SET epoch = $1, leader = $2, changed_at = now()', [epoch, leader])
  }
  return readState(client)
}

async function joinLineage(client: Client, { lineage, epoch, leader }: Following): Promise<SiteState> {
  // Before the look: nobody adds anything between the two.
  await client.query(startCapture)
  await client.query(`SELECT set_config('baton.applying', 'on', true)`)
  // Any site that runs has them; the leader has the same.
  await client.query('DELETE FROM jobs WHERE name IN (SELECT job FROM schedules)')
  await assertEmpty(client)
  await client.query('DELETE FROM change_pending')
  await client.query('UPDATE sync_cursors SET pos = 0, at = now()')
  await client.query(writeSentinels, [lineage])
  await forgoSeeding(client)
  await client.query(
    `UPDATE site SET role = 'replica', intake = 'closed', lineage = $1, epoch = $2, leader = $3, changed_at = now()`,
    [lineage, epoch, leader],
  )
  return readState(client)
}

const owned = ['devices', 'state_devices', 'pushes', 'bodies', 'datasets', 'jobs', 'changes']

async function assertEmpty(client: Client): Promise<void> {
  const looks = owned.map((table) => `SELECT '${table}' AS name WHERE EXISTS (SELECT FROM ${table})`)
  const { rows } = await client.query<{ name: string }>(looks.join(' UNION ALL '))
  if (rows.length > 0) throw SITE_NOT_EMPTY({ what: rows.map(({ name }) => name).join(', ') })
}

/** All that is there came from the leader, and is numbered. */
const forgoSeeding = (client: Client): Promise<unknown> =>
  client.query(
    `INSERT INTO sync_seeds (type, done) VALUES ('*', true) ON CONFLICT (type) DO UPDATE SET done = true`,
  )

interface TakeOver {
  epoch: number
  lineage: string
  heads?: number[]
}

export async function takeOver(client: Client, { epoch, lineage, heads }: TakeOver): Promise<SiteState> {
  const state = await lockState(client)
  if (state.role === 'alone') throw SITE_NOT_LEADER({ what: 'promoting it' })
  assertLineage(state, lineage)
  const isAgain = state.role === 'leader' && state.epoch === epoch
  if (!isAgain && (state.role !== 'replica' || state.epoch !== epoch - 1)) throw stale(state, epoch)
  // Who numbers and who applies holds the row of a shard: after these they see the new role, before them they are done.
  await client.query('SELECT FROM change_heads ORDER BY shard FOR UPDATE')
  if (heads) assertEven(await lockCursors(client), heads, (found, wanted) => found === wanted)
  if (isAgain) return state
  await lockCursors(client)
  await client.query(
    'UPDATE change_heads h SET pos = c.pos, at = now() FROM sync_cursors c WHERE c.shard = h.shard',
  )
  await forgoSeeding(client)
  await client.query('SELECT change_settle()')
  await client.query(
    `UPDATE site SET role = 'leader', intake = 'open', epoch = $1, leader = NULL, changed_at = now()`,
    [epoch],
  )
  return readState(client)
}

const lockCursors = (client: Client): Promise<number[]> =>
  positions(client, 'SELECT pos FROM sync_cursors ORDER BY shard FOR UPDATE')

async function positions(client: Client, sql: string): Promise<number[]> {
  const { rows } = await client.query<{ pos: string }>(sql)
  return rows.map(({ pos }) => Number(pos))
}

interface StepDown {
  epoch: number
  leader: string
  cursors: number[]
}

export async function stepDown(client: Client, { epoch, leader, cursors }: StepDown): Promise<SiteState> {
  const before = await readState(client)
  if (before.role === 'replica' && before.epoch === epoch) return before
  await takeFence(client)
  const state = await lockState(client)
  if (state.role === 'alone') throw SITE_NOT_LEADER({ what: 'demoting it' })
  if (epoch <= state.epoch) {
    if (state.role === 'replica' && state.epoch === epoch) return state
    throw stale(state, epoch)
  }
  if (state.role === 'replica') throw isReplica(state, 'being demoted')
  const heads = await positions(client, 'SELECT pos FROM change_heads ORDER BY shard FOR UPDATE')
  assertEven(heads, cursors, (found, wanted) => found >= wanted)
  await lockCursors(client)
  await client.query(
    `UPDATE sync_cursors c SET pos = given.pos, at = now()
     FROM unnest($1::bigint[]) WITH ORDINALITY AS given (pos, place) WHERE c.shard = given.place - 1`,
    [cursors],
  )
  await setTailAside(client, state.epoch)
  // Now, when nobody waits for it: a promotion answers the other site within seconds, however much was under way here.
  await client.query('SELECT change_settle()')
  await client.query(
    `UPDATE site SET role = 'replica', intake = 'closed', epoch = $1, leader = $2, changed_at = now()`,
    [epoch, leader],
  )
  return readState(client)
}

/** Nothing of it is left where the new leader's positions come in: it would be taken for what that one numbered. */
async function setTailAside(client: Client, epoch: number): Promise<void> {
  await client.query(
    `WITH tail AS (
       DELETE FROM changes c USING sync_cursors s WHERE s.shard = c.shard AND c.pos > s.pos
       RETURNING c.type, c.id, c.shard, c.pos, c.kind, c.hash)
     INSERT INTO sync_tail (type, id, shard, pos, kind, hash, epoch)
     SELECT type, id, shard, pos, kind, hash, $1::bigint FROM tail
     ON CONFLICT (type, id) DO UPDATE SET pos = excluded.pos, kind = excluded.kind, hash = excluded.hash,
       epoch = excluded.epoch, at = now()`,
    [epoch],
  )
  await client.query(
    `WITH pending AS (DELETE FROM change_pending RETURNING type, id, shard)
     INSERT INTO sync_tail (type, id, shard, epoch) SELECT DISTINCT type, id, shard, $1::bigint FROM pending
     ON CONFLICT (type, id) DO UPDATE SET pos = NULL, kind = NULL, hash = NULL, epoch = excluded.epoch, at = now()`,
    [epoch],
  )
}

function assertEven(
  found: number[],
  wanted: number[],
  fits: (found: number, wanted: number) => boolean,
): void {
  const differing = found.flatMap((pos, shard) => {
    const other = wanted[shard]
    return other !== undefined && fits(pos, other) ? [] : [{ shard, found: pos, wanted: other ?? 'unknown' }]
  })
  const [first] = differing
  if (first) throw SYNC_BEHIND({ ...first, count: differing.length })
}

function assertLineage(state: SiteState, lineage: string): void {
  if (state.lineage === lineage) return
  throw LINEAGE_FOREIGN({ here: state.lineage ?? 'none', there: lineage })
}

const stale = (state: SiteState, epoch: number) =>
  EPOCH_STALE({ epoch, role: state.role, current: state.epoch })

const isReplica = (state: SiteState, what: string) =>
  SITE_IS_REPLICA({ leader: state.leader ?? 'another site', epoch: state.epoch, what })
