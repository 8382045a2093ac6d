import { type Clock, createSystemClock } from '../../core/clock.ts'
import { SITE_CLOSED } from '../postgres/errors.ts'
import { type Client, type Postgres, type Queryable, withAnswerIn } from '../postgres/postgres.ts'
import { EPOCH_STALE, SITE_IS_REPLICA, SITE_NOT_LEADER } from './errors.ts'
import { becomeAlone, becomeLeader, becomeReplica, stepDown, takeOver } from './site-roles.ts'
import { lockState, patiently, readState, takeFence } from './site-rows.ts'

export type SiteRole = 'alone' | 'leader' | 'replica'
export type Intake = 'open' | 'draining' | 'closed'

/** The one row that says what this site is. docs/protocols/sync.md has the words. */
export interface SiteState {
  role: SiteRole
  intake: Intake
  epoch: number
  lineage: string | null
  /** Of a replica: the leader's name. */
  leader: string | null
}

/**
 * Who changes what this site is. Each call is one transaction that begins with the site's row, so that two of them come
 * one after the other, and each may be repeated.
 */
export interface Site {
  /** @throws DATABASE_UNAVAILABLE within 5 s */
  read(database?: Queryable): Promise<SiteState>
  /** alone → leader: lineage, sentinels, triggers on, seeds to do. Again: no change. @throws SITE_IS_REPLICA, SITE_BUSY */
  lead(): Promise<SiteState>
  /**
   * leader → alone, open: triggers off, and nothing left of the lineage but the trash. Again: no change. Who had a copy of
   * it can not be joined to this site any more; `lead` begins another lineage.
   * @throws SITE_IN_USE with a replica, during a fail-over, or when closed; SITE_IS_REPLICA, SITE_BUSY
   */
  leave(): Promise<SiteState>
  /** open <-> draining, of a site that leads or is alone. @throws SITE_IS_REPLICA; SITE_CLOSED, since only `reopen` opens that */
  setIntake(intake: 'open' | 'draining'): Promise<void>
  /**
   * Takes the fence exclusively and closes: when it resolves no transaction is under way that still writes, and none will.
   * @param epoch closes only a site of this one: who decided in an earlier one must not close who leads anew
   * @throws SITE_BUSY after `limitMs`, with the site as it was; SITE_NOT_LEADER of a site that is alone; EPOCH_STALE
   */
  close(limitMs: number, epoch?: number): Promise<void>
  /** closed → open, of a leader of this epoch: the abort of a fail-over. @throws SITE_IS_REPLICA, SITE_NOT_LEADER, EPOCH_STALE */
  reopen(epoch: number): Promise<void>
  /**
   * alone and empty → replica: triggers on, closed, cursors 0. Of the same lineage again: no change; a higher epoch and the
   * leader's name are taken over.
   * @throws SITE_NOT_EMPTY, LINEAGE_FOREIGN, EPOCH_STALE, SITE_LEADS, SITE_BUSY; then nothing was changed
   */
  follow(to: { lineage: string; epoch: number; leader: string }): Promise<SiteState>
  /**
   * replica → leader and open, by compare-and-set on epoch - 1. With `heads` (by shard) only when they equal the cursors. The
   * cursors stay as they were at that instant. Again with the same epoch: no change.
   * @throws EPOCH_STALE, SYNC_BEHIND, LINEAGE_FOREIGN, SITE_NOT_LEADER of a site that is alone
   */
  promote(to: { epoch: number; lineage: string; heads?: number[] }): Promise<SiteState>
  /**
   * leader → replica: closed, as `close` does, with these cursors (by shard). What was numbered above them, or is not numbered
   * yet, goes into `sync_tail`: those positions are the new leader's. Again: no change.
   * @throws EPOCH_STALE, SYNC_BEHIND (a cursor above the head), SITE_IS_REPLICA, SITE_NOT_LEADER, SITE_BUSY after 30 s
   */
  demote(to: { epoch: number; leader: string; cursors: number[] }): Promise<SiteState>
}

export interface SiteOptions {
  postgres: Postgres
  clock?: Clock
}

/** The longest that a change of roles waits for those who write, ms. */
const roleLimitMs = 30_000
const readWithinMs = 5_000

export function createSite({ postgres, clock = createSystemClock() }: SiteOptions): Site {
  const soon = withAnswerIn(postgres, readWithinMs)
  const tools = { postgres, clock }
  const patient = <T>(what: string, work: (client: Client) => Promise<T>): Promise<T> =>
    patiently(tools, { what, limitMs: roleLimitMs }, work)

  return {
    read: (database = soon) => readState(database),
    lead: () => patient('made a leader', becomeLeader),
    leave: () => patient('left alone', becomeAlone),
    setIntake: (intake) => postgres.transaction((client) => setIntake(client, intake)),
    close: (limitMs, epoch) =>
      patiently(tools, { what: 'closed', limitMs }, (client) => close(client, epoch)),
    reopen: (epoch) => postgres.transaction((client) => reopen(client, epoch)),
    follow: (to) => patient('made a replica', (client) => becomeReplica(client, to)),
    promote: (to) => postgres.transaction((client) => takeOver(client, to)),
    demote: (to) => patient('closed', (client) => stepDown(client, to)),
  }
}

async function setIntake(client: Client, intake: 'open' | 'draining'): Promise<void> {
  const state = await lockState(client)
  refuseReplica(state, 'opening')
  if (state.intake === 'closed') throw SITE_CLOSED({}, { retryAfterMs: 5_000 })
  await writeIntake(client, state, intake)
}

async function close(client: Client, epoch: number | undefined): Promise<void> {
  const { role, intake } = await readState(client)
  // Without the wait for the fence, which another call may have closed for good.
  if (intake === 'closed') return
  if (role === 'alone') throw SITE_NOT_LEADER({ what: 'closing it' })
  await takeFence(client)
  // The fence first, then the row: a writer in a transaction with one snapshot takes them in that order too.
  const state = await lockState(client)
  if (epoch !== undefined && state.epoch !== epoch)
    throw EPOCH_STALE({ epoch, role: state.role, current: state.epoch })
  await writeIntake(client, state, 'closed')
}

async function reopen(client: Client, epoch: number): Promise<void> {
  const state = await lockState(client)
  refuseReplica(state, 'opening')
  if (state.role === 'alone') throw SITE_NOT_LEADER({ what: 'opening it' })
  if (state.epoch !== epoch) throw EPOCH_STALE({ epoch, role: state.role, current: state.epoch })
  await writeIntake(client, state, 'open')
}

function refuseReplica(state: SiteState, what: string): void {
  if (state.role !== 'replica') return
  throw SITE_IS_REPLICA({ leader: state.leader ?? 'another site', epoch: state.epoch, what })
}

async function writeIntake(client: Client, state: SiteState, intake: Intake): Promise<void> {
  if (state.intake === intake) return
  await client.query('UPDATE site SET intake = $1, changed_at = now()', [intake])
}
