import { randomUUID } from 'node:crypto'
import type { BatonError } from '../../core/errors.ts'
import type { Span } from '../tracing.ts'
import type { Delivery, Disposition } from './backend.ts'
import { JOB_CONTEXT_MISUSED, JOB_INTERRUPTED, JOB_LOST } from './errors.ts'
import type { JobOrigin } from './ledger.ts'
import type { Progress } from './progress.ts'

/** Why a run is to end before its handler says so. The first reason stands. */
export interface Stop {
  kind: 'timeout' | 'cancel' | 'interrupt' | 'lost'
  /** What the signal aborts with. */
  error: BatonError
  /** Of an interruption, for the metrics: one of few words. */
  reason?: string
  /** Monotonic. */
  atMs: number
}

/** How the handler ended. `abandoned`: it did not, and nobody waits for it any more. */
export type Settled =
  | { kind: 'returned'; value: unknown }
  | { kind: 'threw'; error: unknown }
  | { kind: 'abandoned' }

/**
 * One delivery in this process, from its arrival to its disposition. Plain state: the runner stops it, the
 * wrapper moves it on, the context of the handler reads it.
 *
 * `starting` (the row is asked for) → `running` (the handler runs) → `finishing` (the end is being written).
 */
export interface ActiveRun {
  readonly delivery: Delivery
  /** Written to the row, and fences every later write of this run. */
  readonly token: string
  /** Epoch ms. */
  readonly startedAt: number
  phase: 'starting' | 'running' | 'finishing'
  attempt: number
  maxAttempts: number
  /** Before this run. */
  interruptions: number
  /** What a write of the handler was told last while Postgres was away. */
  outage: unknown
  origin: JobOrigin | undefined
  /** Monotonic: the start of the handler, and when it must have ended. */
  handlerMs: number
  deadlineMs: number
  stop: Stop | undefined
  /** Nothing that the handler still asks for is written any more. */
  fenced: boolean
  /** `once` has finished the row, so whatever the handler still does, the job is done. */
  committed: boolean
  /** Made only when the handler asks for its signal: most never do. */
  controller: AbortController | undefined
  /** Woken by a stop and by a drain: an iteration that waits for its source. */
  wake: (() => void) | undefined
  /** Ends the wait for the handler. */
  end: ((settled: Settled) => void) | undefined
  progress: Progress | undefined
  span: Span | undefined
  /** The engine has its answer; whatever comes after is nobody's. */
  settled: boolean
  settle(disposition: Disposition): void
}

export function createActiveRun(
  delivery: Delivery,
  now: { epochMs: number; monotonicMs: number },
  onSettled: (disposition: Disposition) => void,
): ActiveRun {
  const run: ActiveRun = {
    delivery,
    token: delivery.volatile ? '' : randomUUID(),
    startedAt: now.epochMs,
    phase: 'starting',
    attempt: delivery.volatile?.attempt ?? 0,
    maxAttempts: delivery.volatile?.attempts ?? 0,
    interruptions: 0,
    outage: undefined,
    origin: delivery.volatile?.context as JobOrigin | undefined,
    handlerMs: now.monotonicMs,
    deadlineMs: Number.POSITIVE_INFINITY,
    stop: undefined,
    fenced: false,
    committed: false,
    controller: undefined,
    wake: undefined,
    end: undefined,
    progress: undefined,
    span: undefined,
    settled: false,
    settle: (disposition) => {
      if (run.settled) return
      run.settled = true
      run.fenced = true
      onSettled(disposition)
    },
  }
  return run
}

/** Asks a run to end: aborts its signal and wakes its iteration. Repeats change nothing. */
export function stopRun(run: ActiveRun, stop: Stop): void {
  if (run.stop) return
  run.stop = stop
  run.controller?.abort(stop.error)
  run.wake?.()
}

/** Leaves a handler to itself: it is not waited for, and what it still writes is refused. */
export function abandon(run: ActiveRun): void {
  run.fenced = true
  run.end?.({ kind: 'abandoned' })
}

/** The one signal of a run. One controller a run, so no listener outlives it. */
export function signalOf(run: ActiveRun): AbortSignal {
  if (!run.controller) {
    run.controller = new AbortController()
    if (run.stop) run.controller.abort(run.stop.error)
  }
  return run.controller.signal
}

/** Whether what the handler asks for may still be written. */
export const isWritable = (run: ActiveRun): boolean => !run.fenced && run.stop?.kind !== 'lost'

/** @throws when nothing may be written any more, or there is no row to write to */
export function assertWritable(run: ActiveRun, what: string): void {
  if (run.delivery.volatile) {
    throw JOB_CONTEXT_MISUSED({ what: `calls ${what} without a row: it needs a durable job` })
  }
  if (!isWritable(run)) throw run.stop?.error ?? JOB_INTERRUPTED({ reason: 'the run is over' })
}

/** A write of this run matched no row: somebody else has the job by now. Stops it. @returns what to throw */
export function loseRun(run: ActiveRun, nowMs: number): BatonError {
  const error = JOB_LOST({ id: run.delivery.id })
  stopRun(run, { kind: 'lost', error, atMs: nowMs })
  return error
}

/** What every line of a job's log bears. Never the payload. */
export function linesOf(run: ActiveRun): Record<string, unknown> {
  const { id, name } = run.delivery
  const { requestId } = run.origin ?? {}
  return { jobId: id, job: name, attempt: run.attempt, ...(requestId === undefined ? {} : { requestId }) }
}
