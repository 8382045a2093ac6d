import type { Clock } from '../../../core/clock.ts'
import { newId } from '../../../core/ids.ts'
import { insertAudit } from '../../../platform/access/audit-log.ts'
import type { Postgres, Queryable } from '../../../platform/postgres/postgres.ts'
import { EPOCH_STALE, LINEAGE_FOREIGN, SITE_NOT_LEADER } from '../../../platform/replication/errors.ts'
import type { Site, SiteState } from '../../../platform/replication/site.ts'
import { REPLICA_NOT_FOUND } from '../protocol-errors.ts'
import type { FailOverEngine } from './engine.ts'
import { abortedBy } from './engine.ts'
import {
  FAIL_OVER_ABORTED,
  FAIL_OVER_COMMITTED,
  FAIL_OVER_NONE,
  FAIL_OVER_NOT_HERE,
  FAIL_OVER_RUNNING,
  FAIL_OVER_UNCONFIRMED,
} from './errors.ts'
import type { FailOver, FailOverRows, Mode } from './rows.ts'
import { owningTail } from './tail.ts'

export interface Wish extends By {
  mode: Mode
  /** The site that is to open. */
  to: string
  /** Only of `hard`: the name of the leader that is given up. */
  confirm?: string | undefined
}

export interface By {
  actor: string
  /** For the audit log. */
  details?: Record<string, unknown>
}

export interface FailOverView {
  site: SiteState & { name: string }
  /** The one under way, else the last one. */
  current: FailOver | undefined
  /** Newest first. */
  history: FailOver[]
}

/** What operators ask of a site. */
export interface FailOvers {
  /**
   * Notes it; a worker brings it on. A hard one opens this site before it returns.
   * @throws FAIL_OVER_RUNNING, FAIL_OVER_NOT_HERE, FAIL_OVER_UNCONFIRMED, REPLICA_NOT_FOUND, SITE_NOT_LEADER
   */
  begin(wish: Wish): Promise<FailOver>
  /** Takes writes again. @throws FAIL_OVER_NONE, FAIL_OVER_COMMITTED */
  abort(by: By): Promise<FailOver>
  view(): Promise<FailOverView>
  /** What the site that closes asks of the one that opens. @throws EPOCH_STALE, SYNC_BEHIND, LINEAGE_FOREIGN */
  promote(to: { epoch: number; lineage: string; heads: number[] }, by: By): Promise<SiteState>
}

export interface FailOversOptions {
  postgres: Postgres
  rows: FailOverRows
  siteOn(postgres: Postgres): Site
  engine: Pick<FailOverEngine, 'step'>
  /** This site's. */
  name: string
  clock: Clock
}

const shown = 20

export function createFailOvers(options: FailOversOptions): FailOvers {
  const { postgres, rows, siteOn, name } = options
  const site = siteOn(postgres)
  return {
    begin: (wish) => (wish.mode === 'hard' ? beginHard(options, wish) : beginSoft(options, wish)),
    abort: (by) => abort(options, by),
    view: async () => {
      const [state, history] = await Promise.all([site.read(), rows.list(shown)])
      const current = history.find(({ finishedAt }) => finishedAt === null) ?? history[0]
      return { site: { ...state, name }, current, history }
    },
    promote: (to, by) => promote(options, to, by),
  }
}

async function promote(
  { postgres, siteOn }: FailOversOptions,
  to: Parameters<FailOvers['promote']>[0],
  { actor, details }: By,
): Promise<SiteState> {
  const site = siteOn(owningTail(postgres))
  const before = await site.read()
  if (before.lineage !== to.lineage)
    throw LINEAGE_FOREIGN({ here: before.lineage ?? 'none', there: to.lineage })
  try {
    const state = await site.promote(to)
    const subject = `epoch ${to.epoch}`
    if (before.role !== 'leader')
      await insertAudit(postgres, {
        actor,
        action: 'fail-over.promoted',
        subject,
        ...(details ? { details } : {}),
      })
    return state
  } catch (error) {
    if (!EPOCH_STALE.is(error)) throw error
    const { epoch, role } = await site.read()
    throw EPOCH_STALE(
      { epoch: to.epoch, role, current: epoch },
      { faults: [{ path: '/epoch', message: String(epoch) }], cause: error },
    )
  }
}

async function beginSoft({ postgres, rows, siteOn, clock }: FailOversOptions, wish: Wish): Promise<FailOver> {
  const state = await siteOn(postgres).read()
  if (state.role === 'alone') throw SITE_NOT_LEADER({ what: 'a fail-over' })
  if (state.role === 'replica') {
    const leader = state.leader ?? 'its leader'
    throw FAIL_OVER_NOT_HERE({
      reason: `it is a replica. Ask ${leader}, which leads; or, when that is gone, take over here with the mode hard.`,
    })
  }
  return begin({ postgres, rows, clock }, wish, async (client) => {
    const { rowCount } = await client.query('SELECT FROM replicas WHERE name = $1', [wish.to])
    if (rowCount === 0) throw REPLICA_NOT_FOUND({ name: wish.to })
    return { phase: 'preflight' as const }
  })
}

async function beginHard(options: FailOversOptions, wish: Wish): Promise<FailOver> {
  const { postgres, siteOn, name, engine, rows } = options
  if (wish.to !== name) {
    throw FAIL_OVER_NOT_HERE({
      reason: `a hard fail-over is begun at the site that is to open, and this one is ${name}, not ${wish.to}.`,
    })
  }
  const state = await siteOn(postgres).read()
  const given = state.role === 'leader' ? await takeBack(options, wish) : state
  if (given.role !== 'replica') throw FAIL_OVER_NOT_HERE({ reason: 'it leads already, or is alone.' })
  assertConfirmed(given, wish)
  await leaveHandOver(options, wish)
  const begun = await begin(options, wish, async () => ({
    phase: 'promoting' as const,
    epoch: given.epoch + 1,
  }))
  await engine.step()
  return (await rows.list(shown)).find(({ id }) => id === begun.id) ?? begun
}

/** The site to which this one hands over what only it had is gone too. */
async function leaveHandOver({ rows }: FailOversOptions, { actor }: Wish): Promise<void> {
  const running = await rows.running()
  if (running?.mode === 'hard' && running.phase === 'demoting')
    await rows.finish(running, 'aborted', { error: FAIL_OVER_ABORTED({ actor }) })
}

/** @throws FAIL_OVER_UNCONFIRMED */
function assertConfirmed({ leader }: SiteState, { confirm }: Wish): void {
  if (leader === null || confirm !== leader) throw FAIL_OVER_UNCONFIRMED({ leader: leader ?? 'unknown' })
}

/**
 * Of a soft fail-over whose target was asked to open and is gone for good: this site becomes its replica first, as if it
 * had answered, so that it can take over at an epoch of its own.
 */
async function takeBack(options: FailOversOptions, wish: Wish): Promise<SiteState> {
  const { postgres, rows, siteOn } = options
  const running = await rows.running()
  if (!running) return takeBackClosed(options, wish)
  if (running.mode !== 'soft' || running.epoch === null || !running.heads)
    throw FAIL_OVER_NOT_HERE({ reason: 'it leads already.' })
  if (running.phase !== 'promoting' && running.phase !== 'demoting') throw FAIL_OVER_RUNNING()
  assertConfirmed({ ...(await siteOn(postgres).read()), leader: running.target }, wish)
  const { epoch, target, heads } = running
  const state = await siteOn(rows.guarding(running, false)).demote({ epoch, leader: target, cursors: heads })
  await rows.finish(running, 'aborted', { error: abortedBy(wish.actor) })
  return state
}

/**
 * Of a site that closed since another one said that it leads, and that one is gone before it told what it had: this site
 * takes over at an epoch above the other's, with all that it has itself.
 */
async function takeBackClosed(
  { postgres, siteOn }: FailOversOptions,
  { confirm = '' }: Wish,
): Promise<SiteState> {
  const site = siteOn(postgres)
  const { intake, epoch } = await site.read()
  // Draining: the other one was heard of while this site was about to close.
  if (intake === 'open') throw FAIL_OVER_NOT_HERE({ reason: 'it leads already.' })
  const { rows } = await postgres.query<{ name: string }>('SELECT name FROM replicas ORDER BY name')
  // They may have been removed meanwhile, and this site has to open all the same.
  const names = rows.length === 0 ? ['unknown'] : rows.map(({ name }) => name)
  if (!names.includes(confirm)) throw FAIL_OVER_UNCONFIRMED({ leader: names.join(' or ') })
  return site.demote({ epoch: epoch + 1, leader: confirm, cursors: await commonPositions(postgres) })
}

/**
 * Up to where every replica said that it has what this site numbered. Above that the other one has numbered changes of its
 * own: were ours to keep those positions, neither site would ever hear of what the other wrote under them.
 */
async function commonPositions(postgres: Postgres): Promise<number[]> {
  const { rows } = await postgres.query<{ pos: string }>(
    `SELECT least(h.pos, coalesce(min(coalesce(c.pos, 0)), 0)) AS pos
     FROM change_heads h LEFT JOIN replicas r ON true
       LEFT JOIN replica_cursors c ON c.replica = r.name AND c.shard = h.shard
     GROUP BY h.shard, h.pos ORDER BY h.shard`,
  )
  return rows.map(({ pos }) => Number(pos))
}

async function begin(
  { postgres, rows, clock }: Pick<FailOversOptions, 'postgres' | 'rows' | 'clock'>,
  { mode, to, actor, details }: Wish,
  look: (client: Queryable) => Promise<{
    phase: 'preflight' | 'promoting'
    epoch?: number
  }>,
): Promise<FailOver> {
  return postgres.transaction(async (client) => {
    const found = await look(client)
    const begun = await rows.begin({ id: newId(clock.now()), mode, target: to, actor, ...found }, client)
    await insertAudit(client, {
      actor,
      action: `fail-over.${mode}`,
      subject: to,
      details: { ...details, id: begun.id },
    })
    return begun
  })
}

async function abort(
  { postgres, rows, engine }: FailOversOptions,
  { actor, details }: By,
): Promise<FailOver> {
  const running = await rows.running()
  if (!running) throw FAIL_OVER_NONE()
  await insertAudit(postgres, {
    actor,
    action: 'fail-over.abort',
    subject: running.target,
    details: { ...details, id: running.id },
  })
  if (!(await rows.giveUp(running.id, abortedBy(actor)))) {
    const now = await rows.running()
    if (now?.id === running.id) throw FAIL_OVER_COMMITTED({ target: running.target })
    throw FAIL_OVER_NONE()
  }
  await engine.step()
  return (await rows.list(shown)).find(({ id }) => id === running.id) ?? running
}
