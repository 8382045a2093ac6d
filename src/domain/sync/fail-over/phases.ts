import type { PhaseParts } from './engine.ts'
import { FAIL_OVER_DIFFERS, FAIL_OVER_REFUSED, FAIL_OVER_SUPERSEDED } from './errors.ts'
import type { OtherSite } from './other-site.ts'
import { preflight } from './preflight.ts'
import type { FailOver, Phase } from './rows.ts'
import { isShort } from './succession.ts'

/** @returns why the phase is not over yet, for people; undefined when it is */
type Run = (parts: PhaseParts, failOver: FailOver) => Promise<string | undefined>

const shards = 16
/** Of one try; the phase tries again until its time is up. */
const closeWithinMs = 5_000

/** Each may run any number of times, from its beginning. */
export const phases: Partial<Record<Phase, Run>> = {
  preflight: async (parts, failOver) => {
    const problems = await preflight({ ...parts, target: failOver.target })
    if (problems.length === 0) return moved(parts, failOver, 'draining')
    const error = FAIL_OVER_REFUSED({ problems: problems.join('; ') })
    await parts.rows.finish(failOver, 'refused', { error, report: { problems } })
    return undefined
  },

  draining: async (parts, failOver) => {
    if (parts.state.intake === 'open') await parts.site.setIntake('draining')
    const workers = await workersUp(parts)
    if (workers.length > 0) return `workers still end their jobs: ${workers.join(', ')}`
    return moved(parts, failOver, 'closed')
  },

  closed: async (parts, failOver) => {
    await parts.site.close(closeWithinMs)
    return moved(parts, failOver, 'flushing')
  },

  flushing: async (parts, failOver) => {
    const { sequencer, other } = parts
    if (!other) return `there is no replica ${failOver.target} any more`
    await sequencer.drain()
    if (await hasPending(parts)) return 'changes wait for their positions'
    // Nobody writes any more, so these are the last.
    const heads = await sequencer.heads()
    const waits = await lacking(parts, failOver, heads)
    if (waits !== undefined) return waits
    await compareDigests(parts, failOver, other)
    if (failOver.mode === 'soft')
      return moved(parts, failOver, 'promoting', { heads, epoch: parts.state.epoch + 1 })
    await parts.site.reopen(parts.state.epoch)
    await parts.rows.finish(failOver, 'done', { heads })
    return undefined
  },

  promoting: async (parts, failOver) => {
    const { other, state } = parts
    const { epoch, heads } = failOver
    if (epoch === null || !heads || state.lineage === null) return 'its row has lost its epoch'
    // Only a demoted site knows this epoch: whoever had this phase before has died after the next one.
    if (state.epoch >= epoch) return moved(parts, failOver, 'demoting')
    if (!other)
      return `there is no replica ${failOver.target} any more: this site cannot know whether it has opened`
    try {
      await other.promote({ lineage: state.lineage, epoch, heads })
    } catch (error) {
      // The answer to an earlier call may have been lost.
      const hello = await other.hello()
      if (hello.epoch < epoch || hello.role !== 'leader') throw error
      if (hello.epoch === epoch && isShort(failOver, hello)) {
        await parts.succession.yieldTo(failOver.target, hello)
        return undefined
      }
      // Higher: it was promoted, and more has happened since; its next hello tells us.
    }
    return moved(parts, failOver, 'demoting')
  },

  demoting: async (parts, failOver) => {
    const { epoch, heads, target } = failOver
    if (epoch === null || !heads) return 'its row has lost its epoch'
    if (parts.state.epoch < epoch) await parts.site.demote({ epoch, leader: target, cursors: heads })
    await parts.rows.finish(failOver, 'done')
    return undefined
  },
}

async function moved(
  { rows, log }: PhaseParts,
  failOver: FailOver,
  to: Phase,
  values: { heads?: number[]; epoch?: number } = {},
): Promise<undefined> {
  if (!(await rows.advance(failOver, to, values))) return
  log.info({ failOver: failOver.id, mode: failOver.mode, from: failOver.phase, to }, 'the fail-over goes on')
}

/** Where a run may still be open. One without a heartbeat is dead, and its runs begin anew on the other site. */
async function workersUp({ postgres }: PhaseParts): Promise<string[]> {
  const { rows } = await postgres.query<{ name: string }>(
    `SELECT format('%s (process %s, %s)', host, pid, state) AS name FROM nodes
     WHERE kind = 'worker' AND state <> 'standby' AND heartbeat_at > now() - interval '4 s' ORDER BY 1`,
  )
  return rows.map(({ name }) => name)
}

async function hasPending({ postgres }: PhaseParts): Promise<boolean> {
  const { rows } = await postgres.query<{ some: boolean }>(
    'SELECT EXISTS (SELECT FROM change_pending) AS some',
  )
  return rows[0]?.some !== false
}

/** @throws FAIL_OVER_SUPERSEDED */
async function lacking(
  { other, state, postgres }: PhaseParts,
  { target }: FailOver,
  heads: number[],
): Promise<string | undefined> {
  if (!other) return undefined
  const { cursors, epoch } = await other.hello()
  if (epoch > state.epoch) throw FAIL_OVER_SUPERSEDED({ target, epoch })
  const behind = heads.filter((head, shard) => cursors[shard] !== head).length
  if (behind > 0) return `${target} does not have all of ${behind} shards yet`
  const { rows } = await postgres.query<{ left: number }>(
    'SELECT count(*)::int AS left FROM replica_quarantine WHERE replica = $1',
    [target],
  )
  const left = rows[0]?.left ?? 0
  return left > 0 ? `${target} lacks ${left} objects, which are tried again on their own` : undefined
}

/** From the rows of both sides, at equal positions. @throws FAIL_OVER_DIFFERS */
async function compareDigests(
  { sequencer, digests, log }: PhaseParts,
  { target }: FailOver,
  other: OtherSite,
): Promise<void> {
  let buckets = 0
  for (let shard = 0; shard < shards; shard++) {
    const own = await sequencer.atHead(shard, async (client, head) => ({
      head,
      digests: await digests.of(shard, client),
    }))
    const { differing } = await other.digest(shard, own.head, own.digests)
    if (differing === null) throw new Error(`shard ${shard} of ${target} has moved while it was compared`)
    buckets += differing.length
  }
  if (buckets === 0) return
  log.error({ target, buckets }, 'the replica does not have the same objects')
  throw FAIL_OVER_DIFFERS({ target, buckets })
}
