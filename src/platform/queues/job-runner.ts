import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import { withLimit } from '../../core/lifecycle.ts'
import type { Log } from '../log.ts'
import type { Postgres } from '../postgres/postgres.ts'
import type { Tracing } from '../tracing.ts'
import { createTroubleLog } from '../trouble-log.ts'
import type { WakeBus } from '../wake-bus.ts'
import { type ActiveRun, createActiveRun, linesOf, loseRun, stopRun } from './active-run.ts'
import { type ActiveJob, type ActiveRuns, createActiveRuns } from './active-runs.ts'
import type { Consumer, Delivery, Disposition, QueueBackend } from './backend.ts'
import { type CancelWatch, createCancelWatch } from './cancel-watch.ts'
import { concludeFault } from './conclude-run.ts'
import { JOB_CANCELLED, JOB_INTERRUPTED, QUEUE_UNAVAILABLE } from './errors.ts'
import { createFetching } from './fetching.ts'
import type { JobMetrics } from './job-metrics.ts'
import type { Ledger } from './ledger.ts'
import type { PayloadStore } from './payload-store.ts'
import { createAllPlaces } from './places.ts'
import type { Registry } from './registry.ts'
import type { Engine } from './run-engine.ts'
import { runJob } from './run-job.ts'
import { createSuspects } from './suspects.ts'

export interface JobRunnerOptions<Deps> {
  registry: Registry<Deps>
  ledger: Ledger
  backend: QueueBackend
  database: Pick<Postgres, 'transaction'>
  /** What every handler is given as its dependencies. */
  deps: Deps
  log: Log
  clock: Clock
  metrics: JobMetrics
  wakeBus: WakeBus
  /** Id of this runner, new at each start of a process: the holder of its rows and entries. */
  runner: string
  /** Jobs at once, for each queue. */
  concurrency: number
  /** The queues to serve; all that the registry knows unless said. */
  queues?: readonly string[]
  limits?: Partial<RunnerLimits>
  /** Where payloads lie that are too large for a row; without it such jobs wait. */
  payloads?: PayloadStore
  /** Undefined: nothing is traced. */
  tracing?: Tracing | undefined
}

export interface RunnerLimits {
  /** How long a handler may go on after its signal aborted for a timeout or a cancel, before it is left behind, ms. */
  graceMs: number
  /** Time for each of the two steps of a hand-back: writing the rows, answering the engine, ms. */
  handBackMs: number
  /** How long a name may be unknown before its jobs fail, ms. */
  unknownMs: number
  /** How often the rows that are held are looked at for a cancel, ms. */
  cancelLookMs: number
  /** Longest start of the consumers, ms. */
  startMs: number
}

const usual: RunnerLimits = {
  graceMs: 2_000,
  handBackMs: 1_000,
  unknownMs: 900_000,
  cancelLookMs: 2_000,
  startMs: 30_000,
}

/** Runs the jobs of a process: a consumer for each queue, and one wrapper around every handler. */
export interface JobRunner {
  /** @throws QUEUE_UNAVAILABLE when the consumers do not start in time */
  start(): Promise<void>
  /** Fetches nothing new; what runs goes on. */
  quiet(): void
  /**
   * Fetches nothing new and asks every run to end: iterations stop after their item, all others finish.
   * Resolves when nothing runs, also when that was brought about by `interrupt`.
   */
  drain(): Promise<void>
  /**
   * Aborts every signal, waits up to `graceMs` for the handlers, and hands the rest back: rows first, then
   * entries. Resolves within `graceMs` and twice `handBackMs`, whatever is away.
   */
  interrupt(reason: string, graceMs: number): Promise<void>
  /** What is under way, for the state dump. */
  active(): ActiveJob[]
  /** Closes the consumers within `limitMs`. What still runs is interrupted before, without a grace. */
  close(limitMs: number): Promise<void>
}

export function createJobRunner<Deps>(options: JobRunnerOptions<Deps>): JobRunner {
  const { clock, log } = options
  const limits = { ...usual, ...options.limits }
  const draining = new AbortController()
  const givingUp = new AbortController()
  const runs = createActiveRuns({ clock, log, metrics: options.metrics, graceMs: limits.graceMs })
  const engine: Engine = {
    ...options,
    places: createAllPlaces(options.concurrency, clock, draining.signal),
    registry: options.registry,
    suspects: createSuspects(),
    draining: draining.signal,
    givingUp: givingUp.signal,
    unknownMs: limits.unknownMs,
    unknownSince: new Map(),
    onUnstarted: () => fetching.pause(),
    onLateEnd: runs.cameHome,
  }
  const consumers = createConsumers(options, runs, engine)
  const cancels = watchCancels(options, runs, limits.cancelLookMs)

  const fetching = createFetching({ consumers, ledger: options.ledger, clock })
  const beginDrain = (): void => {
    fetching.quiet()
    draining.abort()
    for (const run of runs) run.wake?.()
  }
  const answered = (): Promise<void> => allAnswered(consumers, clock, limits.handBackMs)
  const interrupt = async (reason: string, graceMs: number): Promise<void> => {
    beginDrain()
    await interruptRuns(engine, runs, { reason, graceMs, handBackMs: limits.handBackMs })
    givingUp.abort()
    giveBack(engine, runs)
    await answered()
  }

  return {
    start: async () => {
      cancels.start()
      const started = Promise.all(consumers.map((each) => each.start()))
      await withLimit(started, limits.startMs).catch((error: unknown) => {
        throw QUEUE_UNAVAILABLE({ reason: messageOf(error) }, { cause: error })
      })
    },
    quiet: fetching.quiet,
    drain: async () => {
      beginDrain()
      await runs.idle()
      await answered()
    },
    interrupt,
    active: runs.list,
    close: async (limitMs) => {
      fetching.quiet()
      if (runs.size > 0) await interrupt('closing', 0)
      const closing = [cancels.stop(), ...consumers.map((each) => each.close(limitMs))]
      await withLimit(Promise.allSettled(closing), limitMs).catch(() => {
        log.warn('the consumers did not close in time')
      })
    },
  }
}

/** Ends the handlers, with a grace, and lets their rows be written. */
async function interruptRuns(
  { clock }: Engine,
  runs: ActiveRuns,
  { reason, graceMs, handBackMs }: { reason: string; graceMs: number; handBackMs: number },
): Promise<void> {
  const error = JOB_INTERRUPTED({ reason })
  for (const run of runs) stopRun(run, { kind: 'interrupt', error, reason, atMs: clock.monotonicMs() })
  await runs.idle(graceMs)
  for (const run of runs) if (run.phase === 'running') runs.leaveBehind(run)
  await runs.idle(handBackMs)
}

/** What could not be written in time goes back as it is: the row is held by a runner that is about to die. */
function giveBack({ log }: Engine, runs: ActiveRuns): void {
  for (const run of runs) {
    log.error(linesOf(run), 'a job goes back although its row could not be written; it is released later')
    run.settle({ kind: 'handed-back' })
  }
}

/** Until the engine has all answers. While it is away they cannot reach it, so this has a limit. */
async function allAnswered(consumers: Consumer[], clock: Clock, limitMs: number): Promise<void> {
  const untilMs = clock.monotonicMs() + limitMs
  while (consumers.some((each) => each.active().length > 0) && clock.monotonicMs() < untilMs) {
    await clock.sleep(10)
  }
}

/** One delivery: from its arrival until it is settled, by its own end or by that of the process. */
function process(engine: Engine, runs: ActiveRuns, delivery: Delivery): Promise<Disposition> {
  const { clock } = engine
  return new Promise((resolve) => {
    // Fetched while the drain began.
    if (engine.draining.aborted) return resolve({ kind: 'handed-back' })
    const now = { epochMs: clock.now(), monotonicMs: clock.monotonicMs() }
    const run = createActiveRun(delivery, now, (disposition) => {
      runs.delete(run)
      resolve(disposition)
    })
    runs.add(run)
    runJob(engine, run)
      .catch((fault: unknown) => concludeFault(engine, run, fault))
      .then(run.settle, () => run.settle({ kind: 'delayed', ms: 5_000 }))
  })
}

function createConsumers<Deps>(
  options: JobRunnerOptions<Deps>,
  runs: ActiveRuns,
  engine: Engine,
): Consumer[] {
  const { backend, runner, concurrency, registry } = options
  const troubles = createTroubleLog(options.log, options.clock)
  return [...new Set(options.queues ?? registry.queues)].map((queue) =>
    backend.consume({
      queue,
      runner,
      concurrency,
      ahead: engine.places(queue).ahead,
      process: (delivery) => process(engine, runs, delivery),
      onLost: (id) => {
        for (const run of runs) if (run.delivery.id === id) void onLost(options, run)
      },
      onError: (error) => troubles.tell(`the engine of the queue ${queue} has trouble`, error),
    }),
  )
}

/** Without a row the lock is all there is. With one, the row knows whether the run is still ours. */
async function onLost<Deps>(options: JobRunnerOptions<Deps>, run: ActiveRun): Promise<void> {
  const { ledger, clock, log } = options
  log.warn(linesOf(run), 'the lock of a job was lost')
  if (run.delivery.volatile) return void loseRun(run, clock.monotonicMs())
  if (run.phase !== 'running') return
  // Changes nothing: an absent progress leaves the one that stands.
  const mine = await ledger.saveProgress(run.delivery.id, run.token, undefined).catch(() => true)
  if (!mine && run.phase === 'running' && !run.committed) loseRun(run, clock.monotonicMs())
}

function watchCancels<Deps>(options: JobRunnerOptions<Deps>, runs: ActiveRuns, everyMs: number): CancelWatch {
  const { ledger, wakeBus, clock, log } = options
  const cancellable = (run: ActiveRun): boolean => !run.delivery.volatile && !run.stop
  return createCancelWatch({
    ledger,
    wakeBus,
    clock,
    log,
    everyMs,
    held: () => [...runs].filter(cancellable).map((run) => run.delivery.id),
    onCancel: (id) => {
      for (const run of runs) {
        if (run.delivery.id !== id || !cancellable(run)) continue
        const error = JOB_CANCELLED({ reason: 'on request' })
        stopRun(run, { kind: 'cancel', error, atMs: clock.monotonicMs() })
      }
    },
  })
}
