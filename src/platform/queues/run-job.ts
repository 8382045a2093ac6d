import { backoffMs } from '../../core/backoff.ts'
import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import type { Log } from '../log.ts'
import type { Postgres } from '../postgres/postgres.ts'
import type { Tracing } from '../tracing.ts'
import { type ActiveRun, linesOf, type Settled } from './active-run.ts'
import type { Disposition } from './backend.ts'
import { readCheckpoint } from './checkpoint.ts'
import {
  INPUT_INVALID,
  JOB_CHECKPOINT_INVALID,
  JOB_POISONOUS,
  JOB_RESULT_INVALID,
  JOB_UNKNOWN,
} from './errors.ts'
import { summaryOf } from './faults.ts'
import type { Job } from './job.ts'
import { createJobContext } from './job-context.ts'
import { toError, toJobError } from './job-error.ts'
import type { JobMetrics, RunOutcome } from './job-metrics.ts'
import { beginSpan, endSpan } from './job-span.ts'
import type { Ending, Ledger, StartResult } from './ledger.ts'
import { pause } from './outage-pause.ts'
import { isClaim, redeem } from './payload-claim.ts'
import type { PayloadStore } from './payload-store.ts'
import type { Places } from './places.ts'
import type { Registry } from './registry.ts'
import { failure, judge, type Verdict } from './settlement.ts'
import { type NotStarted, startRow } from './start-row.ts'
import type { Suspects } from './suspects.ts'

/** What all runs of a process share. */
export interface Engine {
  registry: Pick<Registry, 'find' | 'validate' | 'validateCheckpoint'>
  ledger: Ledger
  database: Pick<Postgres, 'transaction'>
  deps: unknown
  log: Log
  clock: Clock
  metrics: JobMetrics
  runner: string
  suspects: Suspects
  /** Of a queue. */
  places(queue: string): Places
  payloads?: PayloadStore
  tracing?: Tracing | undefined
  /** Aborts at drain: a run that has not begun goes back. */
  draining: AbortSignal
  /** Aborts when the time for writing is over. */
  givingUp: AbortSignal
  /** How long a name may be unknown before its jobs fail, ms. */
  unknownMs: number
  /** When each unknown name was first met. Monotonic. */
  unknownSince: Map<string, number>
  /** Postgres does not let this process start rows. */
  onUnstarted(): void
  /** A handler has ended after it was abandoned. */
  onLateEnd(run: ActiveRun): void
}

/** Stalls of work without a row; the ledger counts those of the others. */
const poisonStalls = 5
/** What an entry is left to others for whose row this process could not start, ms. */
const unstartedPauseMs = 500
const maxUnknownNames = 1_000
const handedBack: Disposition = { kind: 'handed-back' }
const finished: Disposition = { kind: 'finished' }

/**
 * The one way from a delivery to its disposition: start the row, check the payload, run the handler, write how
 * it ended, answer the engine. The row is written before the answer, so that a crash between the two repeats
 * nothing: docs/protocols/jobs.md, steps 2 to 5.
 */
export async function runJob(engine: Engine, run: ActiveRun): Promise<Disposition> {
  const job = engine.registry.find(run.delivery.name)
  if (!job) return meetUnknown(engine, run)
  if (run.delivery.volatile) return runVolatile(engine, run, job)
  const started = await startRow(engine, run)
  if (started.kind !== 'started') return skip(engine, run, started)
  const verdict = isClaim(started.payload)
    ? await attemptApart(engine, run, job, started)
    : await attempt(engine, run, job, started)
  return concludeDurable(engine, run, verdict)
}

async function runVolatile(engine: Engine, run: ActiveRun, job: Job): Promise<Disposition> {
  const { payload, stalls } = run.delivery.volatile ?? { payload: undefined, stalls: 0 }
  if (stalls >= poisonStalls) {
    const error = toJobError(JOB_POISONOUS({ crashes: stalls }))
    return concludeVolatile(engine, run, { kind: 'failed', error })
  }
  return concludeVolatile(engine, run, await attempt(engine, run, job, { payload, checkpoint: undefined }))
}

// --- before the handler

function skip(
  engine: Engine,
  run: ActiveRun,
  started: Exclude<StartResult, { kind: 'started' }> | NotStarted,
): Disposition {
  switch (started.kind) {
    case 'finished':
    case 'missing':
      return finished
    case 'poison':
      engine.log.error({ ...linesOf(run), code: JOB_POISONOUS.code }, 'job set aside')
      engine.metrics.finished(run.delivery.name, 'failed', 0)
      return finished
    case 'early':
      return { kind: 'delayed', ms: Math.max(1, Math.ceil(started.ms)) }
    case 'held':
      return { kind: 'delayed', ms: 1_000 }
    case 'unstarted':
      engine.onUnstarted()
      return { kind: 'delayed', ms: unstartedPauseMs }
    case 'called-off':
      return handedBack
  }
}

/**
 * A name that this process does not know: during a deploy the job is one of the new release, so it waits for a
 * process that knows it. One that stays unknown fails, or it would go round for ever.
 */
async function meetUnknown(engine: Engine, run: ActiveRun): Promise<Disposition> {
  const { name } = run.delivery
  const nowMs = engine.clock.monotonicMs()
  const since = engine.unknownSince.get(name)
  if (since === undefined) {
    if (engine.unknownSince.size >= maxUnknownNames) engine.unknownSince.clear()
    engine.unknownSince.set(name, nowMs)
    engine.log.warn({ job: name, jobId: run.delivery.id }, 'no job has this name here; left to others')
  }
  const ageMs = nowMs - (since ?? nowMs)
  if (ageMs < engine.unknownMs) {
    return { kind: 'delayed', ms: backoffMs(1, { baseMs: 10_000, maxMs: 10_000 }) }
  }
  const ending: Ending = { kind: 'failed', error: toJobError(JOB_UNKNOWN({ name })) }
  if (run.delivery.volatile) return concludeVolatile(engine, run, ending)
  const started = await startRow(engine, run)
  return started.kind === 'started' ? concludeDurable(engine, run, ending) : skip(engine, run, started)
}

// --- the handler

interface Given {
  payload: unknown
  checkpoint: unknown
}

/** For a row whose payload lies elsewhere. One that cannot be read now says so by its error, and uses no attempt. */
async function attemptApart(engine: Engine, run: ActiveRun, job: Job, given: Given): Promise<Verdict> {
  if (!isClaim(given.payload)) return attempt(engine, run, job, given)
  let payload: unknown
  try {
    payload = await redeem(given.payload, engine.payloads, engine.draining)
  } catch (error) {
    return engine.draining.aborted ? { kind: 'interrupted' } : failure(error, run, job)
  }
  return attempt(engine, run, job, { ...given, payload })
}

async function attempt(engine: Engine, run: ActiveRun, job: Job, given: Given): Promise<Verdict> {
  const faults = engine.registry.validate(job.name, given.payload)
  if (faults.length > 0) {
    const error = toJobError(INPUT_INVALID({ summary: summaryOf(faults) }, { faults }))
    return { kind: 'failed', error }
  }
  const worn = engine.registry.validateCheckpoint(job.name, readCheckpoint(given.checkpoint).value)
  if (worn.length > 0)
    return failure(JOB_CHECKPOINT_INVALID({ reason: summaryOf(worn) }, { faults: worn }), run, job)
  const places = engine.places(run.delivery.queue)
  const hasPlace = await places.enter()
  if (run.stop || !hasPlace) {
    if (hasPlace) places.leave()
    // Stopped before it began, by a cancel or at the deadline; else others may have a place for it.
    return run.stop ? judge(run, job, { kind: 'abandoned' }) : { kind: 'snooze', delayMs: 0 }
  }
  run.phase = 'running'
  run.handlerMs = engine.clock.monotonicMs()
  run.deadlineMs = run.handlerMs + job.timeoutMs
  engine.metrics.started(job.name)
  run.span = beginSpan(engine.tracing, run)
  const settled = await handle(engine, run, job, given)
  run.phase = 'finishing'
  places.leave(engine.clock.monotonicMs() - run.handlerMs)
  run.delivery.free?.()
  const verdict = judge(run, job, settled)
  run.fenced = true
  return verdict
}

/** Resolves when the handler ends, or when it is abandoned; whatever it does later is not waited for. */
function handle(engine: Engine, run: ActiveRun, job: Job, given: Given): Promise<Settled> {
  const { ledger, database, clock, log, draining } = engine
  const context = createJobContext({
    run,
    checkpoint: given.checkpoint,
    ledger,
    database,
    clock,
    log,
    draining: () => draining.aborted,
  })
  return new Promise((resolve) => {
    let over = false
    const end = (settled: Settled): void => {
      if (over) engine.onLateEnd(run)
      over = true
      resolve(settled)
    }
    run.end = end
    const work = async (): Promise<unknown> => job.run(given.payload, engine.deps, context)
    work().then(
      (value) => end({ kind: 'returned', value }),
      (error: unknown) => end({ kind: 'threw', error }),
    )
  })
}

// --- after the handler

/**
 * The wrapper itself failed: by a fault of ours, or a schema that throws. Counted as a failure of the job, since a row
 * that nobody ends is held for as long as this process lives.
 */
export async function concludeFault(engine: Engine, run: ActiveRun, fault: unknown): Promise<Disposition> {
  engine.log.error({ ...linesOf(run), error: toJobError(fault) }, 'the wrapper of a job failed')
  const job = engine.registry.find(run.delivery.name)
  if (!job || run.delivery.volatile) return { kind: 'delayed', ms: 5_000 }
  run.fenced = true
  return concludeDurable(engine, run, failure(fault, run, job))
}

async function concludeDurable(engine: Engine, run: ActiveRun, verdict: Verdict): Promise<Disposition> {
  if (verdict.kind === 'lost') return dropRun(engine, run)
  if (verdict.kind !== 'committed') {
    await run.progress?.finish()
    const written = await writeEnding(engine, run, verdict)
    if (written === 'unwritten') return handedBack
    if (written === 'lost') return dropRun(engine, run)
  }
  record(engine, run, verdict)
  if (verdict.kind === 'retry' || verdict.kind === 'snooze') return { kind: 'delayed', ms: verdict.delayMs }
  return verdict.kind === 'interrupted' ? handedBack : finished
}

/**
 * Written until Postgres answers, as long as this process lives: what the handler did is done, and a run that is
 * not recorded is done again. Asking again is safe, since only the holder of the token can end the row once.
 */
async function writeEnding(
  engine: Engine,
  run: ActiveRun,
  wanted: Ending,
): Promise<'written' | 'lost' | 'unwritten'> {
  let ending = wanted
  for (let retry = 1; ; retry++) {
    try {
      return (await engine.ledger.finish(run.delivery.id, run.token, ending)) ? 'written' : 'lost'
    } catch (error) {
      if (INPUT_INVALID.is(error) && ending.kind !== 'failed') {
        // It looked like JSON and is none, or none that Postgres takes: it will not become better.
        ending = { kind: 'failed', error: toJobError(JOB_RESULT_INVALID({ reason: messageOf(error) })) }
        continue
      }
      if (run.settled || engine.givingUp.aborted) return 'unwritten'
      await pause(
        engine,
        run,
        { error, retry, what: 'the end of a job could not be recorded' },
        engine.givingUp,
      )
    }
  }
}

/** The entry comes again: it finds the row finished, or free and without another entry. */
function dropRun(engine: Engine, run: ActiveRun): Disposition {
  engine.log.warn(linesOf(run), 'the run was lost to another; its outcome is dropped')
  count(engine, run, 'lost')
  return { kind: 'delayed', ms: 1_000 }
}

async function concludeVolatile(engine: Engine, run: ActiveRun, verdict: Verdict): Promise<Disposition> {
  await run.progress?.finish()
  record(engine, run, verdict)
  switch (verdict.kind) {
    case 'completed':
      return { kind: 'finished', result: verdict.result }
    case 'failed':
      return { kind: 'failed', error: toError(verdict.error), final: true }
    case 'retry':
      return { kind: 'failed', error: toError(verdict.error), final: false }
    case 'snooze':
      return { kind: 'delayed', ms: verdict.delayMs }
    case 'cancelled':
    case 'committed':
      return finished
    case 'interrupted':
    case 'lost':
      return handedBack
  }
}

const outcomes: Record<Verdict['kind'], RunOutcome> = {
  completed: 'completed',
  committed: 'completed',
  failed: 'failed',
  retry: 'retried',
  snooze: 'snoozed',
  cancelled: 'cancelled',
  interrupted: 'interrupted',
  lost: 'lost',
}

function record(engine: Engine, run: ActiveRun, verdict: Verdict): void {
  count(engine, run, outcomes[verdict.kind])
  if (verdict.kind === 'failed') {
    engine.log.warn({ ...linesOf(run), code: verdict.error.code }, 'job failed')
  } else if (verdict.kind === 'retry') {
    const { error, delayMs } = verdict
    engine.log.info({ ...linesOf(run), code: error.code, delayMs }, 'job failed and is tried again')
  } else if (verdict.kind === 'interrupted') {
    engine.metrics.interrupted(run.delivery.name, run.stop?.reason ?? (run.outage ? 'postgres' : 'drain'))
    engine.log.info(linesOf(run), 'job interrupted; it goes back to the queue')
  }
}

function count(engine: Engine, run: ActiveRun, outcome: RunOutcome): void {
  const { name } = run.delivery
  // A name that nobody defined must not become a label: whoever sends names could fill the memory with them.
  const label = engine.registry.find(name) ? name : '(unknown)'
  engine.metrics.finished(label, outcome, engine.clock.monotonicMs() - run.handlerMs)
  endSpan(run, outcome)
}
