import type { Clock } from '../../../core/clock.ts'
import { newId } from '../../../core/ids.ts'
import type { Log } from '../../../platform/log.ts'
import type { Postgres } from '../../../platform/postgres/postgres.ts'
import { EPOCH_STALE } from '../../../platform/replication/errors.ts'
import type { Site, SiteState } from '../../../platform/replication/site.ts'
import type { HelloAnswer } from '../wire.ts'
import { FAIL_OVER_MOVED_ON, FAIL_OVER_SUPERSEDED } from './errors.ts'
import type { Heir } from './other-site.ts'
import type { FailOver, FailOverRows } from './rows.ts'
import { ownTail, type Tail, type TailReport } from './tail.ts'

export interface SuccessionOptions {
  postgres: Postgres
  rows: FailOverRows
  siteOn(postgres: Postgres): Site
  tail: Tail
  /** By the name of a replica; undefined when none is registered under it. */
  connectHeir(name: string, to: { state: SiteState; lostAfter: number[] }): Promise<Heir | undefined>
  clock: Clock
  log: Log
}

/** A hard fail-over, on both of its sides. */
export interface Succession {
  /**
   * On a site that led: `name`, one of its replicas, says that it leads at a higher epoch. Closes this site at once and
   * notes what is to be done. Again is no harm.
   */
  yieldTo(name: string, hello: HelloAnswer): Promise<void>
  /**
   * Brings a hard fail-over on: on the site that opens it opens it, on the one that led it hands over what only that one had.
   * @returns why it is not over yet; undefined when it is, or when there is more to do at once
   */
  step(failOver: FailOver): Promise<string | undefined>
}

const closeWithinMs = 5_000

export function createSuccession(options: SuccessionOptions): Succession {
  return {
    yieldTo: (name, hello) => yieldTo(options, name, hello),
    step: (failOver) =>
      failOver.phase === 'promoting' ? takeOver(options, failOver) : handOver(options, failOver),
  }
}

async function yieldTo(options: SuccessionOptions, name: string, hello: HelloAnswer): Promise<void> {
  const { postgres, rows, siteOn, clock, log } = options
  const site = siteOn(postgres)
  const state = await site.read()
  if (state.role !== 'leader' || hello.lineage !== state.lineage || hello.epoch <= state.epoch) return
  const running = await rows.running()
  if (running?.target === name && running.epoch === hello.epoch && !isShort(running, hello)) return
  if (state.intake !== 'closed') {
    log.error({ leader: name, epoch: hello.epoch }, 'another site leads at a higher epoch: this one closes')
    await site.close(closeWithinMs, state.epoch)
  }
  const error = FAIL_OVER_SUPERSEDED({ target: name, epoch: hello.epoch })
  // Whatever becomes of it, it opens nothing any more.
  if (running) await rows.giveUp(running.id, error)
  if (hello.role !== 'leader' || !hello.lostAfter || hello.epoch !== state.epoch + 1) return
  if (running) await rows.finish(running, 'aborted', { error })
  await rows.begin({
    id: newId(clock.now()),
    mode: 'hard',
    target: name,
    phase: 'demoting',
    actor: `the site ${name}`,
    epoch: hello.epoch,
    heads: hello.lostAfter,
  })
}

/**
 * Of a soft fail-over whose target leads at its epoch. Usually it is the one that was asked for, of which the answer was
 * lost. But one that was restored from a backup after it was asked, and then opened by force, lacks what it had.
 */
export const isShort = ({ heads }: FailOver, { lostAfter }: HelloAnswer): boolean =>
  lostAfter?.some((pos, shard) => pos < (heads?.[shard] ?? 0)) ?? false

/** On the site that opens. */
async function takeOver(
  { postgres, rows, siteOn, log }: SuccessionOptions,
  failOver: FailOver,
): Promise<string | undefined> {
  const { epoch } = failOver
  const site = siteOn(rows.guarding(failOver, false))
  const { lineage } = await site.read()
  if (epoch === null || lineage === null) return 'its row has lost its epoch'
  try {
    await site.promote({ epoch, lineage })
  } catch (error) {
    if (!EPOCH_STALE.is(error)) throw error
    await rows.finish(failOver, 'aborted', { error })
    return undefined
  }
  await ownTail(postgres)
  // Nothing is applied here any more, so they are those of the instant at which it opened.
  const { rows: cursors } = await postgres.query<{ pos: string }>(
    'SELECT pos FROM sync_cursors ORDER BY shard',
  )
  const heads = cursors.map(({ pos }) => Number(pos))
  if (await rows.finish(failOver, 'done', { heads }))
    log.warn(
      { epoch, lostAfter: heads },
      'this site leads now; what the one before had numbered above is not here',
    )
  return undefined
}

/** On the site that led. */
async function handOver(options: SuccessionOptions, failOver: FailOver): Promise<string | undefined> {
  const { rows, siteOn, tail, connectHeir, log } = options
  const { target, epoch, heads } = failOver
  if (epoch === null || !heads) return 'its row has lost its epoch'
  const site = siteOn(rows.guarding(failOver, false))
  const before = await site.read()
  const state = before.epoch < epoch ? await site.demote({ epoch, leader: target, cursors: heads }) : before
  if (state.epoch > epoch) {
    await rows.finish(failOver, 'done', { report: { ...failOver.report, left: 'another fail-over came' } })
    return undefined
  }
  const heir = await connectHeir(target, { state, lostAfter: heads })
  if (!heir)
    return `${target} is not registered here any more: register it to hand over what only this site has`
  let report = failOver.report ?? {}
  for (let handed = await tail.hand(heir); handed; handed = await tail.hand(heir)) {
    report = sum(report, handed)
    await rows.note(failOver.id, report)
    if ((await rows.running())?.id !== failOver.id) throw FAIL_OVER_MOVED_ON({ phase: failOver.phase })
    // What failed is tried again with the next step.
    if (Object.keys(handed).length === 0) return `${target} could not take some objects`
  }
  if (await rows.finish(failOver, 'done', { report }))
    log.warn({ leader: target, epoch, ...report }, 'this site follows now; what only it had was handed over')
  return undefined
}

function sum(report: Record<string, unknown>, handed: TailReport): Record<string, unknown> {
  const total = { ...report }
  for (const [state, count] of Object.entries(handed)) total[state] = Number(total[state] ?? 0) + count
  return total
}
