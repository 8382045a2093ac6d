import { messageOf } from '../../core/errors.ts'
import { type ActiveRun, linesOf } from './active-run.ts'
import type { Disposition } from './backend.ts'
import { INPUT_INVALID, JOB_RESULT_INVALID } from './errors.ts'
import { toError, toJobError } from './job-error.ts'
import type { RunOutcome } from './job-metrics.ts'
import { endSpan } from './job-span.ts'
import type { Ending } from './ledger.ts'
import { pause } from './outage-pause.ts'
import type { Engine } from './run-engine.ts'
import { failure, type Verdict } from './settlement.ts'

export const handedBack: Disposition = { kind: 'handed-back' }
export const finished: Disposition = { kind: 'finished' }

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

export async function concludeDurable(
  engine: Engine,
  run: ActiveRun,
  verdict: Verdict,
): Promise<Disposition> {
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

export async function concludeVolatile(
  engine: Engine,
  run: ActiveRun,
  verdict: Verdict,
): Promise<Disposition> {
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
