import type { Clock } from '../../core/clock.ts'
import type { Log } from '../log.ts'
import { type ActiveRun, abandon, linesOf, stopRun } from './active-run.ts'
import { JOB_TIMED_OUT } from './errors.ts'
import type { JobMetrics } from './job-metrics.ts'

export interface ActiveRunsOptions {
  clock: Clock
  log: Log
  metrics: JobMetrics
  /** How long a handler may go on after its signal aborted for a timeout or a cancel, before it is left behind, ms. */
  graceMs: number
}

export interface ActiveJob {
  id: string
  name: string
  queue: string
  attempt: number
  /** Epoch ms. */
  startedAt: number
  phase: ActiveRun['phase'] | 'left-behind'
}

/** The runs of this process. It keeps their times: timeout, grace, the pace of their progress. */
export interface ActiveRuns extends Iterable<ActiveRun> {
  readonly size: number
  add(run: ActiveRun): void
  delete(run: ActiveRun): void
  /** Lets a handler go that does not end: nobody waits for it, and it writes nothing any more. */
  leaveBehind(run: ActiveRun): void
  /** A handler that was left behind has ended after all. */
  cameHome(run: ActiveRun): void
  /** Resolves when there is none, or after `limitMs` if given. */
  idle(limitMs?: number): Promise<void>
  /** For the state dump: also handlers that were left behind. */
  list(): ActiveJob[]
}

/** One look at all runs serves all their times: a timer for each would cost more than most jobs. */
const lookMs = 50

export function createActiveRuns(options: ActiveRunsOptions): ActiveRuns {
  const { clock, log, metrics, graceMs } = options
  const runs = new Set<ActiveRun>()
  const behind = new Set<ActiveRun>()
  let waiters: (() => void)[] = []
  let watching = false

  const leaveBehind = (run: ActiveRun): void => {
    log.error({ ...linesOf(run), why: run.stop?.kind }, 'handler ignores its signal and is left behind')
    metrics.leftBehind(run.delivery.name)
    behind.add(run)
    abandon(run)
  }
  const watch = async (): Promise<void> => {
    watching = true
    while (runs.size > 0) {
      await clock.sleep(lookMs)
      const nowMs = clock.monotonicMs()
      for (const run of runs) if (isOverdue(run, nowMs, graceMs)) leaveBehind(run)
    }
    watching = false
  }

  return {
    [Symbol.iterator]: () => runs.values(),
    get size() {
      return runs.size
    },
    add: (run) => {
      runs.add(run)
      if (!watching) void watch()
    },
    delete: (run) => {
      runs.delete(run)
      if (runs.size === 0) for (const wake of waiters.splice(0)) wake()
    },
    leaveBehind,
    cameHome: (run) => {
      if (behind.delete(run)) log.warn(linesOf(run), 'a handler that was left behind has ended')
    },
    idle: async (limitMs) => {
      if (runs.size === 0) return
      const over = new AbortController()
      const empty = new Promise<void>((resolve) => waiters.push(resolve))
      await Promise.race(limitMs === undefined ? [empty] : [empty, clock.sleep(limitMs, over.signal)])
      over.abort()
    },
    list: () => [
      ...[...runs].map((run) => show(run, run.phase)),
      ...[...behind].map((run) => show(run, 'left-behind')),
    ],
  }
}

/** Keeps the times of one run. @returns whether its handler has used up its grace */
function isOverdue(run: ActiveRun, nowMs: number, graceMs: number): boolean {
  if (run.phase !== 'running') return false
  run.progress?.flush(nowMs)
  run.wake?.()
  if (!run.stop && nowMs >= run.deadlineMs) {
    const error = JOB_TIMED_OUT({ timeoutMs: Math.round(run.deadlineMs - run.handlerMs) })
    stopRun(run, { kind: 'timeout', error, atMs: nowMs })
  }
  // An interruption ends by the deadline of the process, which is the runner's to keep.
  return run.stop !== undefined && run.stop.kind !== 'interrupt' && nowMs - run.stop.atMs >= graceMs
}

function show(run: ActiveRun, phase: ActiveJob['phase']): ActiveJob {
  const { id, name, queue } = run.delivery
  return { id, name, queue, attempt: run.attempt, startedAt: run.startedAt, phase }
}
