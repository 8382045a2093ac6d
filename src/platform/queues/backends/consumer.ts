import { type IQueueBackend, Job, UnrecoverableError, Worker } from 'bullmq'
import { backoffMs } from '../../../core/backoff.ts'
import type { Clock } from '../../../core/clock.ts'
import { withLimit } from '../../../core/lifecycle.ts'
import type { ConsumeOptions, Consumer, Delivery, Disposition } from '../backend.ts'
import type { Engine, OpenedBackend } from './engine.ts'
import { asDelivery, asError, backoffOf } from './entries.ts'
import type { Taken } from './exchange.ts'
import { createExchangeLoop, type ExchangeLoop } from './exchange-loop.ts'
import { createHoldings, type Holdings } from './holdings.ts'

/**
 * How soon the entries of a lost node run elsewhere: a lock that nobody renews for 4 s, found by one of the sweeps
 * that follow each second. Stalls are never counted here, the ledger counts crashes.
 */
const lockMs = 4_000
const sweepMs = 1_000
const endless = 1_000_000
/** Pause after a failure of the engine, ms. */
const retryMs = 500
/** What a delivery that nobody could decide upon waits before it comes again, ms. */
const undecidedMs = 1_000

type EngineWorker = Worker<unknown, unknown, string, IQueueBackend>

interface Opened extends OpenedBackend {
  worker: EngineWorker
  loop: ExchangeLoop
}

/**
 * Fetches entries by hand, as BullMQ calls it: its Worker sweeps stalled entries and knows how to fail a job, but it
 * would send a command for each entry, and keep a place for an entry as long as its end is written. It begins to
 * exist with `start`, once the engine was reached: made while the engine is away, BullMQ's connection to Postgres
 * stays broken for good.
 */
export function createConsumer(engine: Engine, clock: Clock, options: ConsumeOptions): Consumer {
  const stopping = new AbortController()
  const closed = new AbortController()
  const held = createHoldings(options, clock)
  let quiet = false
  let opened: Opened | undefined
  let starting: Promise<void> | undefined
  let closing: Promise<void> | undefined

  const start = async (): Promise<void> => {
    const reached = await openWhenReachable(engine, options, { clock, signal: stopping.signal })
    if (!reached) return
    const worker = createWorker(engine, options, reached.backend)
    const loop = createExchangeLoop({
      ...loopEvents(options),
      opened: reached,
      runner: options.runner,
      clock,
      room: () => (quiet ? 0 : held.room()),
      onTaken: (taken) => receive(desk, taken, quiet),
    })
    opened = { ...reached, worker, loop }
    const desk: Desk = { ...options, ...opened, held, clock, signal: stopping.signal }
    void held.renew({ ...desk, lockMs, signal: closed.signal })
    await worker.startStalledCheckTimer()
    loop.poke()
  }
  const close = async (limitMs: number): Promise<void> => {
    const untilMs = clock.monotonicMs() + limitMs
    quiet = true
    stopping.abort()
    await held.empty(limitMs)
    closed.abort()
    if (!opened) return
    opened.loop.stop()
    // Ends the wait for an entry.
    opened.backend.disconnectBlocking(false).catch(() => undefined)
    // Without its limit this waits for an engine that is away as long as it is away.
    await withLimit(opened.worker.close(), Math.max(0, untilMs - clock.monotonicMs())).catch(() => undefined)
    opened.destroy()
  }

  return {
    start: () => (starting ??= start()),
    quiet: () => {
      quiet = true
    },
    resume: () => {
      quiet = false
      opened?.loop.poke()
    },
    active: held.ids,
    close: (limitMs) => (closing ??= close(limitMs)),
  }
}

/** What a delivery needs on its way. */
interface Desk extends ConsumeOptions, Opened {
  held: Holdings
  clock: Clock
  /** Aborts when the consumer closes. */
  signal: AbortSignal
}

const loopEvents = ({ onError }: ConsumeOptions) => ({
  onError,
  onFailed: (id: string, code: number): void => onError(new Error(failureOf(id, code))),
  // Redis threw the content away and kept the id. Whether there is a row the reconciler knows.
  onHusk: (id: string): void => onError(new Error(`entry ${id} came without its content; does Redis evict?`)),
})

function receive(desk: Desk, taken: Taken, quiet: boolean): void {
  // A fetch that was already waiting when quiet was asked for still brings one entry.
  if (quiet) return void putBack(desk, taken, { kind: 'handed-back' })
  if (!desk.held.has(taken.id)) return void deliver(desk, taken)
  // Our own lock ran out, and the entry came back to us while its first run goes on.
  desk.onLost(taken.id)
  void putBack(desk, taken, { kind: 'delayed', ms: undecidedMs })
}

async function deliver(desk: Desk, taken: Taken): Promise<void> {
  const { held, loop, queue, backend } = desk
  const holding = held.add(taken, true)
  const free = (): void => {
    held.free(holding)
    loop.poke()
  }
  const forget = (): void => {
    held.delete(holding)
    loop.poke()
  }
  const delivery = asDelivery(taken, { queue, backend, free })
  const disposition = await decide(desk, delivery)
  if (disposition.kind === 'finished') {
    const kept = delivery.volatile ? { kept: JSON.stringify(disposition.result ?? null) } : {}
    loop.end({ id: taken.id, token: taken.token, ...kept }, forget)
  } else {
    await settle(desk, taken, disposition)
    forget()
  }
}

async function putBack(desk: Desk, taken: Taken, disposition: Moved): Promise<void> {
  const holding = desk.held.add(taken, false)
  await settle(desk, taken, disposition)
  desk.held.delete(holding)
}

async function decide(desk: Desk, delivery: Delivery): Promise<Disposition> {
  try {
    return await desk.process(delivery)
  } catch (error) {
    // A throw would end a durable entry for good, although nothing was decided.
    desk.onError(asError(error))
    return { kind: 'delayed', ms: undecidedMs }
  }
}

type Moved = Exclude<Disposition, { kind: 'finished' }>

/** Moves an entry that is not simply over; tried until the engine answers. */
async function settle(desk: Desk, taken: Taken, disposition: Moved): Promise<void> {
  for (;;) {
    try {
      return await move(desk, taken, disposition)
    } catch (error) {
      // When the lock was lost, somebody else decides over the entry, and there is nothing left to move.
      if (/lock|missing key|not in the active state/i.test(asError(error).message)) return
      desk.onError(asError(error))
      if (desk.signal.aborted) return
      await desk.clock.sleep(retryMs, desk.signal)
    }
  }
}

async function move(
  { backend, worker, clock }: Desk,
  { id, token }: Taken,
  disposition: Moved,
): Promise<void> {
  switch (disposition.kind) {
    case 'failed': {
      const { final, error } = disposition
      const job = await Job.fromId(worker as never, id)
      await job?.moveToFailed(final ? unrecoverable(error) : error, token, false)
      return
    }
    case 'delayed': {
      const delayMs = Math.max(1, Math.ceil(disposition.ms))
      await backend.moveToDelayed(id, clock.now(), delayMs, token, { skipAttempt: true })
      return
    }
    case 'handed-back':
      await backend.moveJobFromActiveToWait(id, token)
  }
}

/** BullMQ's words for why an entry could not be ended. */
function failureOf(id: string, code: number): string {
  if (code === -1) return `Missing key for job ${id}. moveToFinished`
  if (code === -2) return `Missing lock for job ${id}. moveToFinished`
  if (code === -6) return `Lock mismatch for job ${id}. Cmd moveToFinished from active`
  return `Job ${id} is not in the active state. moveToFinished`
}

function createWorker(engine: Engine, options: ConsumeOptions, backend: IQueueBackend): EngineWorker {
  // Without a processor: it fetches nothing by itself.
  const worker: EngineWorker = new Worker(options.queue, null, workerOptions(engine, options), () => backend)
  worker.on('error', options.onError)
  return worker
}

const workerOptions = (engine: Engine, options: ConsumeOptions) => ({
  // Our backend factory has the connections; BullMQ only asks that there is something.
  connection: {},
  prefix: engine.prefix(options.queue),
  name: options.runner,
  autorun: false,
  ...lockOptions,
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

function unrecoverable(error: Error): Error {
  const final = new UnrecoverableError(error.message)
  if (error.stack) final.stack = error.stack
  return final
}
