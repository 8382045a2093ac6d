import type { Clock } from '../../core/clock.ts'
import { codeOf, messageOf } from '../../core/errors.ts'
import type { Log } from '../log.ts'
import { DATABASE_UNAVAILABLE } from '../postgres/errors.ts'
import type { Client, Postgres } from '../postgres/postgres.ts'
import { type ActiveRun, assertWritable, linesOf, loseRun, signalOf } from './active-run.ts'
import { readCheckpoint } from './checkpoint.ts'
import { JOB_CONTEXT_MISUSED, JOB_RESULT_INVALID } from './errors.ts'
import { done, type JobContext } from './job.ts'
import type { Ledger } from './ledger.ts'
import { toJson } from './ledger-json.ts'
import { createProgress } from './progress.ts'
import { createRunCheckpoints, type RunCheckpoints } from './run-checkpoints.ts'
import { createRunLoops, type RunLoops } from './run-loops.ts'
import { resultFault } from './settlement.ts'

export interface ContextOptions {
  run: ActiveRun
  /** As it stands in the row. */
  checkpoint: unknown
  ledger: Ledger
  database: Pick<Postgres, 'transaction'>
  clock: Clock
  log: Log
  draining: () => boolean
}

const maxProgressBytes = 16_384

/** The context of one run. What it writes is fenced by the run's token; after the run it writes nothing. */
export function createJobContext(options: ContextOptions): JobContext<unknown> {
  const { run, ledger, clock, draining } = options
  const { delivery, token } = run
  const { id, name } = delivery
  let log: Log | undefined
  let bound: Bound | undefined
  // Most jobs save nothing, and a context is made for each of them: what is not asked for is not made.
  const bind = (): Bound => {
    bound ??= bindCheckpoints(options)
    return bound
  }

  const once: JobContext['once'] = async (work) => {
    assertWritable(run, 'once')
    if (run.committed) throw JOB_CONTEXT_MISUSED({ what: 'called once twice; the first has ended the job' })
    let result: unknown
    await transact(options, async (client) => {
      result = await work(client)
      const fault = resultFault(result)
      if (fault) throw JOB_RESULT_INVALID({ reason: fault })
      assertWritable(run, 'once')
      const mine = await ledger.finishWith(client, id, token, { kind: 'completed', result })
      if (!mine) throw loseRun(run, clock.monotonicMs())
    })
    run.committed = true
    return done(result)
  }
  /**
   * Whoever waits for a write hears of its failure. A handler that does not wait would otherwise end the whole process
   * with it, and every job beside it, mostly because its own run was over before the write.
   */
  const watched = <T>(write: Promise<T>): Promise<T> => {
    write.catch((error: unknown) => {
      if (run.fenced)
        options.log.warn({ ...linesOf(run), code: codeOf(error) }, 'a write of a handler came to nothing')
    })
    return write
  }

  return {
    id,
    name,
    attempt: run.attempt,
    traceparent: run.span?.traceparent ?? run.origin?.traceparent,
    checkpoint: readCheckpoint(options.checkpoint).value,
    get signal() {
      return signalOf(run)
    },
    get draining() {
      return draining()
    },
    get log() {
      return (log ??= options.log.child(linesOf(run)))
    },
    progress: (value) => {
      if (run.fenced) return
      run.progress ??= createProgress((newest) => showProgress(options, newest))
      run.progress.set(value, clock.monotonicMs())
    },
    save: (checkpoint) => watched(bind().checkpoints.save(checkpoint)),
    iterate: (source, how = {}) => ({ [Symbol.asyncIterator]: () => bind().loops.loop(source, how) }),
    transact: (checkpoint, work) => watched(bind().checkpoints.transact(checkpoint, work)),
    once: (work) => watched(once(work)),
  }
}

const transact = <T>({ run, database }: ContextOptions, work: (client: Client) => Promise<T>): Promise<T> =>
  notingOutage(run, database.transaction(work))

/** Keeps the error by which Postgres was away, so that it is known for one that is not the handler's fault. */
async function notingOutage<T>(run: ActiveRun, write: Promise<T>): Promise<T> {
  try {
    return await write
  } catch (error) {
    if (DATABASE_UNAVAILABLE.is(error)) run.outage = error
    throw error
  }
}

interface Bound {
  checkpoints: RunCheckpoints
  loops: RunLoops
}

function bindCheckpoints(given: ContextOptions): Bound {
  const { run, ledger } = given
  const options: ContextOptions = {
    ...given,
    database: { transaction: (work) => transact(given, work) },
    ledger: { ...ledger, saveCheckpoint: (...note) => notingOutage(run, ledger.saveCheckpoint(...note)) },
  }
  const checkpoints = createRunCheckpoints(options)
  return { checkpoints, loops: createRunLoops(options, checkpoints) }
}

async function showProgress({ run, ledger, clock, log }: ContextOptions, value: unknown): Promise<void> {
  const { delivery, token } = run
  try {
    const text = toJson(value, 'progress')
    if (Buffer.byteLength(text) > maxProgressBytes) throw new Error(`over ${maxProgressBytes} bytes of JSON`)
    if (delivery.volatile) await delivery.showProgress(value)
    else if (!(await ledger.saveProgress(delivery.id, token, value)) && !run.committed)
      loseRun(run, clock.monotonicMs())
  } catch (error) {
    // Progress is for people to look at: no reason to fail the work.
    log.debug({ ...linesOf(run), reason: messageOf(error) }, 'progress was not shown')
  }
}
