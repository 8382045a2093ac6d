import { backoffMs } from '../../core/backoff.ts'
import { BatonError, type Fault, messageOf } from '../../core/errors.ts'
import type { ActiveRun, Settled } from './active-run.ts'
import { JOB_OUTCOME_INVALID, JOB_RESULT_INVALID } from './errors.ts'
import type { Job, Outcome } from './job.ts'
import { toJobError } from './job-error.ts'
import type { Ending } from './ledger.ts'
import { toJson } from './ledger-json.ts'

/** What is to be written of a run. `committed`: `once` has written it already. `lost`: nothing may be written. */
export type Verdict = Ending | { kind: 'committed' } | { kind: 'lost' }

type Judged = Pick<ActiveRun, 'stop' | 'committed' | 'attempt' | 'maxAttempts' | 'interruptions' | 'outage'>

/**
 * So often an outage of Postgres under a handler's own writes uses no attempt. Not without end: a handler whose statement
 * takes Postgres down would come back for ever.
 */
const freeOutages = 10

const maxResultBytes = 262_144
const maxDelayMs = 366 * 86_400_000
/** The engine on Postgres takes no fractions: an entry with one could not be put off, and stood still until its lock ran out. */
const wholeMs = (ms: number): number => Math.min(Math.ceil(ms), maxDelayMs)

/**
 * Turns how a handler ended into what becomes of its job.
 *
 * Once the signal has aborted, only an explicit outcome counts: a loop that leaves because of `signal.aborted`
 * returns nothing, and that must not pass for the end of the work.
 */
export function judge(run: Judged, job: Pick<Job, 'backoff'>, settled: Settled): Verdict {
  try {
    return judgeReadable(run, job, settled)
  } catch (error) {
    // A getter of what the handler returned.
    const what = 'something that cannot be read'
    return failure(JOB_OUTCOME_INVALID({ what }, { cause: error }), run, job)
  }
}

function judgeReadable(run: Judged, job: Pick<Job, 'backoff'>, settled: Settled): Verdict {
  if (run.committed) return { kind: 'committed' }
  if (run.stop?.kind === 'lost') return { kind: 'lost' }
  if (settled.kind === 'returned' && (settled.value !== undefined || !run.stop)) {
    return endingOf(settled.value, run, job)
  }
  if (run.stop?.kind === 'timeout') return failure(run.stop.error, run, job)
  if (run.stop?.kind === 'cancel') return { kind: 'cancelled', reason: 'on request' }
  if (isInterrupted(run, settled)) return { kind: 'interrupted' }
  return failure(settled.kind === 'threw' ? settled.error : undefined, run, job)
}

function isInterrupted({ stop, outage, interruptions }: Judged, settled: Settled): boolean {
  if (stop?.kind === 'interrupt') return true
  const isOutage = settled.kind === 'threw' && outage !== undefined && settled.error === outage
  return isOutage && interruptions < freeOutages
}

/**
 * A failure: again after a pause while attempts are left, unless the error itself says that it is in vain, or that
 * it is no failure but too early.
 */
export function failure(
  thrown: unknown,
  run: Pick<Judged, 'attempt' | 'maxAttempts'>,
  job: Pick<Job, 'backoff'>,
): Ending {
  const error = toJobError(thrown)
  const traits = thrown instanceof BatonError ? thrown : undefined
  // Something is overloaded and says when to come again: that slows the queue, and is not the job's failure.
  if (traits?.traits.retry === 'after') {
    const delayMs = wholeMs(Math.max(backoffMs(1, job.backoff), traits.retryAfterMs ?? 0))
    return { kind: 'snooze', delayMs }
  }
  if (run.attempt >= run.maxAttempts || traits?.traits.retry === 'never') return { kind: 'failed', error }
  const delayMs = wholeMs(Math.max(backoffMs(run.attempt, job.backoff), traits?.retryAfterMs ?? 0))
  return { kind: 'retry', error, delayMs }
}

function endingOf(value: unknown, run: Judged, job: Pick<Job, 'backoff'>): Ending {
  const outcome = value === undefined ? { kind: 'done' as const } : readOutcome(value)
  switch (outcome?.kind) {
    case 'done': {
      const fault = resultFault(outcome.result)
      if (!fault) return { kind: 'completed', result: outcome.result }
      return failure(JOB_RESULT_INVALID({ reason: fault }), run, job)
    }
    case 'snooze':
      return { kind: 'snooze', delayMs: wholeMs(outcome.ms) }
    case 'cancel':
      return { kind: 'cancelled', reason: outcome.reason }
    case undefined:
      return failure(JOB_OUTCOME_INVALID({ what: describe(value) }), run, job)
  }
}

function readOutcome(value: unknown): Outcome | undefined {
  if (typeof value !== 'object' || value === null || !('kind' in value)) return undefined
  const outcome = value as Outcome
  if (outcome.kind === 'done') return outcome
  if (outcome.kind === 'snooze') return Number.isFinite(outcome.ms) && outcome.ms >= 0 ? outcome : undefined
  if (outcome.kind === 'cancel') return typeof outcome.reason === 'string' ? outcome : undefined
  return undefined
}

/** Says the form, never the value: it may be a payload. */
const describe = (value: unknown): string =>
  value === null ? 'null' : Array.isArray(value) ? 'an array' : `another ${typeof value}`

/** Why a result cannot be kept, or undefined. */
export function resultFault(result: unknown): string | undefined {
  if (result === undefined || result === null || typeof result === 'boolean') return undefined
  if (typeof result === 'function' || typeof result === 'symbol') return `a ${typeof result} is not JSON`
  let text: string
  try {
    text = toJson(result, 'result')
  } catch (error) {
    return (
      (error instanceof BatonError ? error.faults : undefined)?.map(wordsOf).join('; ') ?? messageOf(error)
    )
  }
  const bytes = Buffer.byteLength(text)
  return bytes > maxResultBytes ? `it has ${bytes} bytes of JSON, more than ${maxResultBytes}` : undefined
}

const wordsOf = (fault: Fault): string => `${fault.path} ${fault.message}`
