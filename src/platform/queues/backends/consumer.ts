import { DelayedError, type IQueueBackend, type Job, UnrecoverableError, WaitingError, Worker } from 'bullmq'
import { backoffMs } from '../../../core/backoff.ts'
import type { Clock } from '../../../core/clock.ts'
import { withLimit } from '../../../core/lifecycle.ts'
import type { ConsumeOptions, Consumer, Disposition } from '../backend.ts'
import type { Engine, OpenedBackend } from './engine.ts'
import { asDelivery, asError, backoffOf } from './entries.ts'

/**
 * How soon the entries of a lost node run elsewhere: a lock that nobody renews for 4 s, found by one of the sweeps
 * that follow each second. Stalls are never counted here, the ledger counts crashes.
 */
const lockMs = 4_000
const sweepMs = 1_000
const endless = 1_000_000
/** Pause after a failed fetch, ms; the engine's own default of 15 s would outlast the outage. */
const retryMs = 500
/** Longest wait for an entry in one command, seconds. Delayed entries shorten it. */
const blockSeconds = 5
/** What a delivery that nobody could decide upon waits before it comes again, ms. */
const undecidedMs = 1_000

type EngineWorker = Worker<unknown, unknown, string, IQueueBackend>

/**
 * One BullMQ worker. It begins to exist with `start`, once the engine was reached: made while the engine is away,
 * BullMQ's connection to Postgres stays broken for good.
 */
export function createConsumer(engine: Engine, clock: Clock, options: ConsumeOptions): Consumer {
  const stopping = new AbortController()
  const active = new Map<string, Job>()
  let quiet = false
  let worker: EngineWorker | undefined
  let opened: OpenedBackend | undefined
  let starting: Promise<void> | undefined
  let closing: Promise<void> | undefined

  // Exactly three parameters: with fewer BullMQ would make no signal, and cancelling would tell nobody.
  const processor = async (job: Job, token: string | undefined, _signal?: AbortSignal): Promise<unknown> => {
    const id = job.id ?? ''
    if (typeof job.name !== 'string' || job.name === '') {
      // Redis threw the content away and kept the id. Whether there is a row the reconciler knows.
      options.onError(new Error(`entry ${id} came without its content; does Redis evict?`))
      return null
    }
    // A fetch that was already waiting when quiet was asked for still brings one entry.
    if (quiet) return settle(job, token, { kind: 'handed-back' }, clock)
    if (active.has(id)) {
      // Our own lock ran out, and the entry came back to us while its first run goes on.
      options.onLost(id)
      return settle(job, token, { kind: 'delayed', ms: undecidedMs }, clock)
    }
    active.set(id, job)
    try {
      return await settle(job, token, await decide(job, options), clock)
    } finally {
      active.delete(id)
    }
  }

  const start = async (): Promise<void> => {
    opened = await openWhenReachable(engine, options, { clock, signal: stopping.signal })
    if (!opened) return
    const { backend } = opened
    worker = new Worker(options.queue, processor, workerOptions(engine, options), () => backend)
    worker.on('error', options.onError)
    worker.on('lockRenewalFailed', (ids) => {
      for (const id of ids) options.onLost(id)
    })
    if (quiet) void worker.pause(true)
    else worker.run().catch((error: unknown) => options.onError(asError(error)))
  }

  return {
    start: () => (starting ??= start()),
    quiet: () => {
      quiet = true
      worker?.pause(true).catch((error: unknown) => options.onError(asError(error)))
    },
    resume: () => {
      quiet = false
      void worker?.resume()
    },
    active: () => [...active.keys()],
    close: (limitMs) =>
      (closing ??= (async () => {
        quiet = true
        stopping.abort()
        await closeWorker(worker, limitMs)
        opened?.destroy()
      })()),
  }
}

const workerOptions = (engine: Engine, options: ConsumeOptions) => ({
  // Our backend factory has the connections; BullMQ only asks that there is something.
  connection: {},
  prefix: engine.prefix(options.queue),
  name: options.runner,
  concurrency: options.concurrency,
  autorun: false,
  ...lockOptions,
  drainDelay: blockSeconds,
  runRetryDelay: retryMs,
  settings: {
    backoffStrategy: (attempt: number, _type?: string, _error?: Error, job?: { data?: unknown }) =>
      backoffMs(attempt, backoffOf(job?.data)),
  },
})

const lockOptions = {
  lockDuration: lockMs,
  stalledInterval: sweepMs,
  maxStalledCount: endless,
  // For entries that do not say it themselves, since they have lost their content.
  removeOnComplete: { count: 0 },
}

async function openWhenReachable(
  engine: Engine,
  options: ConsumeOptions,
  { clock, signal }: { clock: Clock; signal: AbortSignal },
): Promise<OpenedBackend | undefined> {
  while (!signal.aborted) {
    try {
      return await engine.open(options.queue, { name: options.runner, ...lockOptions })
    } catch (error) {
      options.onError(asError(error))
      await clock.sleep(retryMs, signal)
    }
  }
  return undefined
}

/** Never with force, which would leave the processor running and throw its result away. */
async function closeWorker(worker: EngineWorker | undefined, limitMs: number): Promise<void> {
  if (!worker) return
  // Without its limit this waits for an engine that is away as long as it is away.
  await withLimit(worker.close(), limitMs).catch(() => undefined)
}

async function decide(job: Job, options: ConsumeOptions): Promise<Disposition> {
  try {
    return await options.process(asDelivery(job))
  } catch (error) {
    // A throw would end a durable entry for good, although nothing was decided.
    options.onError(asError(error))
    return { kind: 'delayed', ms: undecidedMs }
  }
}

/** Turns a disposition into what BullMQ wants: a result, a thrown error, or a move followed by a thrown signal. */
async function settle(
  job: Job,
  token: string | undefined,
  disposition: Disposition,
  clock: Clock,
): Promise<unknown> {
  switch (disposition.kind) {
    case 'finished':
      return disposition.result ?? null
    case 'failed':
      throw disposition.final ? unrecoverable(disposition.error) : disposition.error
    case 'delayed':
      await unlessLost(() => job.moveToDelayed(clock.now() + Math.max(1, disposition.ms), token))
      throw new DelayedError()
    case 'handed-back':
      await unlessLost(() => job.moveToWait(token))
      throw new WaitingError()
  }
}

/** When the lock was lost, somebody else decides over the entry, and there is nothing left to move. */
async function unlessLost(move: () => Promise<unknown>): Promise<void> {
  try {
    await move()
  } catch (error) {
    if (!/lock|missing key|not in the active state/i.test(asError(error).message)) throw error
  }
}

function unrecoverable(error: Error): Error {
  const final = new UnrecoverableError(error.message)
  if (error.stack) final.stack = error.stack
  return final
}
