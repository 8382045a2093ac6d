import type { Clock } from '../../core/clock.ts'
import type { Postgres } from '../postgres/postgres.ts'
import type { QueueBackend } from './backend.ts'
import { QUEUE_UNAVAILABLE } from './errors.ts'
import type { Ledger } from './ledger.ts'
import { createReconcileRows, type Place, type ReconcileRows, type RowToAdd } from './reconcile-rows.ts'

/** What a pass has mended, in rows. */
export interface Repairs {
  /** Added for the first time: enqueued in a transaction, retried by hand, or accepted while the queue was away. */
  unqueued: number
  /** Added again because the engine had forgotten its entries. */
  forgotten: number
  /** Overdue and added again, which does nothing to those that only wait for their turn. */
  overdue: number
  /** Held by a dead runner and freed. */
  released: number
  pruned: number
}

export interface ReconcilePass {
  /** Bounded work. @returns whether there is more to do at once */
  run(signal: AbortSignal): Promise<boolean>
}

export interface ReconcilePassOptions {
  postgres: Postgres
  ledger: Ledger
  backend: QueueBackend
  queues: readonly string[]
  clock: Clock
  retention: { finishedMs: number; failedMs: number }
  onError(error: unknown): void
  onRepaired?(repairs: Repairs): void
  overdueMs?: number
}

/** Rows of one statement, and one bulk. */
const pageSize = 500
/** Pages of one kind in a pass, so that a long walk does not hold up the other steps. */
const maxPages = 10
/** How often rows are pruned, ms. */
const pruneEveryMs = 10_000
/** How often it is asked whether the rows that live runs hold have entries, ms. */
const runningEveryMs = 10_000

interface Walk {
  /** What the engine is now; recorded when the walk is at its end. */
  epoch: string
  from: Place | undefined
}

interface PassState {
  recorded: Map<string, string> | undefined
  walks: Map<string, Walk>
  overdueFrom: Place | undefined
  /** When the last walk began that looked at running rows too, and whether this one is such. */
  runningAt: number | undefined
  withRunning: boolean
  prunedAt: number | undefined
}

/** Step 7, one pass at a time. It keeps its cursors between passes, so one is made for as long as one leads. */
export function createReconcilePass(options: ReconcilePassOptions): ReconcilePass {
  const rows = createReconcileRows(options.postgres)
  const state: PassState = {
    recorded: undefined,
    walks: new Map(),
    overdueFrom: undefined,
    runningAt: undefined,
    withRunning: false,
    prunedAt: undefined,
  }
  const context: PassContext = { ...options, rows, state }
  return {
    run: async (signal) => {
      const repairs: Repairs = { unqueued: 0, forgotten: 0, overdue: 0, released: 0, pruned: 0 }
      const more = await runSteps(context, repairs, signal)
      if (Object.values(repairs).some((count) => count > 0)) options.onRepaired?.(repairs)
      return more
    },
  }
}

interface PassContext extends ReconcilePassOptions {
  rows: ReconcileRows
  state: PassState
}

type Step = (context: PassContext, repairs: Repairs, signal: AbortSignal) => Promise<boolean>

/** Those that need the queue, in order of urgency. The first that finds it away spares the others the attempt. */
const queueSteps: Step[] = [addUnqueued, addForgotten, addOverdue]

async function runSteps(context: PassContext, repairs: Repairs, signal: AbortSignal): Promise<boolean> {
  let more = false
  for (const step of queueSteps) {
    if (signal.aborted) return false
    try {
      more = (await step(context, repairs, signal)) || more
    } catch (error) {
      context.onError(error)
      more = false
      if (QUEUE_UNAVAILABLE.is(error)) break
    }
  }
  if (!signal.aborted) await prune(context, repairs)
  return more
}

async function addUnqueued(context: PassContext, repairs: Repairs, signal: AbortSignal): Promise<boolean> {
  for (let page = 0; page < maxPages && !signal.aborted; page++) {
    const rows = await context.rows.unqueued(pageSize)
    const [again, first] = [rows.filter((row) => row.retried > 0), rows.filter((row) => row.retried === 0)]
    await addRows(context.backend, first)
    // Of a job that was cancelled and set back the old entry may still wait for an instant that does not count any more.
    await addRows(context.backend, again, 'mend')
    if (rows.length > 0) await context.rows.markQueued(rows)
    repairs.unqueued += rows.length
    if (rows.length < pageSize) return false
  }
  return true
}

async function addForgotten(context: PassContext, repairs: Repairs, signal: AbortSignal): Promise<boolean> {
  const { state } = context
  state.recorded ??= await context.rows.epochs()
  const queues = new Set([...context.queues, ...state.recorded.keys()])
  for (const queue of queues) await lookForLoss(context, state.recorded, queue)
  for (const [queue, walk] of state.walks) {
    if (signal.aborted) return false
    await walkQueue(context, repairs, { queue, walk, recorded: state.recorded })
  }
  return state.walks.size > 0
}

/** The key is planted before the walk begins: a loss during the walk is seen by the next pass, and begins another. */
async function lookForLoss(
  { backend, state }: PassContext,
  recorded: Map<string, string>,
  queue: string,
): Promise<void> {
  const expected = state.walks.get(queue)?.epoch ?? recorded.get(queue)
  const found = await backend.epoch(queue)
  if (found !== undefined && found === expected) return
  state.walks.set(queue, { epoch: found ?? (await backend.mark(queue)), from: undefined })
}

interface QueueWalk {
  queue: string
  walk: Walk
  recorded: Map<string, string>
}

async function walkQueue(context: PassContext, repairs: Repairs, walking: QueueWalk): Promise<void> {
  const { queue, walk, recorded } = walking
  for (let pages = 0; pages < maxPages; pages++) {
    const page = await context.rows.unfinished(queue, walk.from, pageSize)
    await addRows(context.backend, page.rows)
    repairs.forgotten += page.rows.length
    walk.from = page.next
    if (page.next) continue
    await context.rows.recordEpoch(queue, walk.epoch)
    recorded.set(queue, walk.epoch)
    context.state.walks.delete(queue)
    return
  }
}

async function addOverdue(context: PassContext, repairs: Repairs): Promise<boolean> {
  const { rows, state } = context
  // One page a pass and a cursor that comes round: with a million rows in line they are not all added each second.
  if (!state.overdueFrom) beginWalk(context)
  const { overdueFrom: from, withRunning } = state
  const page = await rows.overdue({ overdueMs: context.overdueMs ?? 15_000, from, withRunning }, pageSize)
  const { freed, ended } = page.held.length > 0 ? await rows.release(page.held) : nothingReleased
  const left = page.rows.filter((row) => !ended.has(row.id))
  left.push(...(await withoutEntry(context.backend, page.running)))
  await addRows(context.backend, left, 'mend')
  repairs.overdue += left.length
  repairs.released += freed + ended.size
  state.overdueFrom = page.next
  return false
}

function beginWalk({ state, clock }: PassContext): void {
  const now = clock.monotonicMs()
  state.withRunning = state.runningAt === undefined || now - state.runningAt >= runningEveryMs
  if (state.withRunning) state.runningAt = now
}

/**
 * A job that runs has an entry. A row without one, in the name of a runner that lives, may be held by nobody: Postgres
 * was restored from a copy, or a start came late. A delivery finds that out; while the job does run, it only waits.
 */
async function withoutEntry(backend: QueueBackend, running: RowToAdd[]): Promise<RowToAdd[]> {
  const found = await Promise.all(running.map((row) => backend.find(row.queue, row.id)))
  return running.filter((_row, index) => found[index] === undefined)
}

const nothingReleased = { freed: 0, ended: new Set<string>() }

async function prune(context: PassContext, repairs: Repairs): Promise<void> {
  const { state, clock } = context
  const now = clock.monotonicMs()
  if (state.prunedAt !== undefined && now - state.prunedAt < pruneEveryMs) return
  state.prunedAt = now
  try {
    for (let page = 0, pruned = pageSize; page < maxPages && pruned >= pageSize; page++) {
      pruned = await context.ledger.prune(context.retention, pageSize)
      repairs.pruned += pruned
    }
    await context.rows.pruneIdempotencyKeys(pageSize * maxPages)
  } catch (error) {
    context.onError(error)
  }
}

async function addRows(backend: QueueBackend, rows: RowToAdd[], how: 'add' | 'mend' = 'add'): Promise<void> {
  const byQueue = Map.groupBy(rows, (row) => row.queue)
  for (const [queue, group] of byQueue) {
    await backend[how](
      queue,
      group.map(({ id, name, delayMs, priority }) => ({ id, name, delayMs, priority })),
    )
  }
}
