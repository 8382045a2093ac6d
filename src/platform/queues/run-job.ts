import { backoffMs } from '../../core/backoff.ts'
import { type ActiveRun, linesOf, type Settled } from './active-run.ts'
import type { Disposition } from './backend.ts'
import { readCheckpoint } from './checkpoint.ts'
import { concludeDurable, concludeVolatile, finished, handedBack } from './conclude-run.ts'
import { INPUT_INVALID, JOB_CHECKPOINT_INVALID, JOB_POISONOUS, JOB_UNKNOWN } from './errors.ts'
import { summaryOf } from './faults.ts'
import type { Job } from './job.ts'
import { createJobContext } from './job-context.ts'
import { toJobError } from './job-error.ts'
import { beginSpan } from './job-span.ts'
import type { Ending, StartResult } from './ledger.ts'
import { isClaim, redeem } from './payload-claim.ts'
import type { Engine } from './run-engine.ts'
import { failure, judge, type Verdict } from './settlement.ts'
import { type NotStarted, startRow } from './start-row.ts'

/** Stalls of work without a row; the ledger counts those of the others. */
const poisonStalls = 5
/** What an entry is left to others for whose row this process could not start, ms. */
const unstartedPauseMs = 500
const maxUnknownNames = 1_000

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
