import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import { withLimit } from '../../core/lifecycle.ts'
import type { Log } from '../../platform/log.ts'
import type { Metrics } from '../../platform/metrics.ts'
import { watchLoopDelay } from '../../platform/processes/loop-delay.ts'
import { type ActiveJob, beatMs, type Command, type Report } from '../../platform/processes/messages.ts'
import type { ExitProcess, ParentPort } from '../../platform/processes/signals.ts'
import { divideGrace, planStop } from '../../platform/processes/stop-plan.ts'

/** The jobs of a child: what the master's commands are carried out on. */
export interface Workload {
  readonly queues: readonly string[]
  /** What carries the queues; `ping` rejects when it does not answer within `limitMs`. */
  readonly engine: { readonly name: string; ping(limitMs: number): Promise<void> }
  start(): Promise<void>
  /** Fetches nothing new. */
  quiet(): void
  /** Quiet; iterations stop at their next checkpoint. Resolves when nothing is under way. */
  drain(): Promise<void>
  /** Aborts, and hands back what has not ended after `graceMs`. */
  interrupt(reason: string, graceMs: number): Promise<void>
  /** For people: also handlers that were left behind, their rows given back. */
  active(): ActiveJob[]
  /** Whether something is under way that would be lost to a kill. */
  busy(): boolean
  close(limitMs: number): Promise<void>
}

export interface WorkerChildOptions {
  port: ParentPort
  workload: Workload
  /** What its jobs count; taken from it and told to the master. */
  metrics: Pick<Metrics, 'take'>
  /** The deadline when the master is dead, ms. */
  shutdownMs: number
  watchdogMs: number
  clock: Clock
  log: Log
  exit: ExitProcess
  /** Tells of the end of the process, also of one that a handler brought about. */
  onExit(listener: (code: number) => void): void
}

const forcedCode = 75
const pollMs = 50
const goodbyeMs = 300
const countsEveryMs = 1_000
/** For an answer of the queue engine at the start, and the pause between two questions, ms. */
const askMs = 1_000
const askEveryMs = 200

/** Says `ready`, then obeys the master until it is told to end, or the master is dead. */
export function runWorkerChild(given: WorkerChildOptions): void {
  const options = { ...given, exit: withFarewell(given) }
  const { port, workload, log } = options
  const send = (report: Report): void => void port.send(report)
  const loop = watchLoopDelay(options.clock)
  const beat = (): void =>
    send({
      type: 'beat',
      active: workload.active(),
      rssBytes: process.memoryUsage.rss(),
      loopDelayMs: loop.peakMs(),
    })
  const leaving = createLeaving(options)

  let isQuiet = false
  const start = async (): Promise<void> => {
    await untilEngineAnswers(options, send, leaving.begun)
    if (leaving.begun.aborted) return
    await workload.start()
    // What was said during the start counts: a consumer that had not begun could not be quieted.
    if (isQuiet) workload.quiet()
    send({ type: 'started' })
  }

  const obey = (command: Command): void => {
    switch (command.type) {
      case 'start':
        start().catch((error: unknown) => {
          log.error({ reason: messageOf(error) }, 'the child cannot take jobs')
          options.exit(1)
        })
        break
      case 'quiet':
        isQuiet = true
        workload.quiet()
        break
      case 'retire':
        isQuiet = true
        leaving.retire()
        break
      case 'drain':
        leaving.drain()
        break
      case 'interrupt':
        leaving.interrupt(command.reason, command.graceMs)
        break
      case 'tell':
        break
    }
    // The master shows what it waits for, so it should know now.
    beat()
  }

  port.onMessage((message) => obey(message as Command))
  port.onClosed(() => {
    log.warn({ shutdownMs: options.shutdownMs }, 'the master is gone; finishing what is under way')
    leaving.alone()
  })
  setInterval(beat, beatMs(options.watchdogMs))
  setInterval(() => void tellCounts(options), countsEveryMs)
  send({ type: 'ready', queues: [...workload.queues] })
}

/**
 * Consumers that begin while the engine is away would look as if they took jobs, so they begin when it answers. Each
 * child asks by itself: one that is forked during an outage waits too, and is not taken for one that cannot start.
 */
async function untilEngineAnswers(
  { workload: { engine }, clock }: WorkerChildOptions,
  send: (report: Report) => void,
  signal: AbortSignal,
): Promise<void> {
  for (let attempt = 1; !signal.aborted; attempt++) {
    try {
      return await engine.ping(askMs)
    } catch (error) {
      if (attempt === 1) send({ type: 'waiting', for: engine.name, reason: messageOf(error) })
      await clock.sleep(askEveryMs, signal)
    }
  }
}

/**
 * Tells of an end that the child did not bring about itself, naming the jobs, while their handler is on the stack.
 *
 * @returns what the child ends itself with
 */
function withFarewell({ workload, log, exit, onExit }: WorkerChildOptions): ExitProcess {
  let isOurs = false
  onExit((code) => {
    const jobs = workload.active().map(({ id, name }) => ({ id, name }))
    if (isOurs || jobs.length === 0) return
    const stack = new Error('process.exit').stack?.split('\n').slice(1)
    log.error(
      { code, jobs, stack },
      'the process ends under its jobs, by a process.exit of a handler or a fault that nobody caught: they go back, and each has one crash more',
    )
  })
  return (code) => {
    isOurs = true
    exit(code)
  }
}

async function tellCounts({ metrics, port }: WorkerChildOptions): Promise<void> {
  const increments = metrics.take()
  const report: Report = { type: 'counts', increments }
  if (Object.keys(increments).length > 0) await port.send(report)
}

/** The ways out of a child. Each may follow the ones before it; the first to come to an end ends the process. */
interface Leaving {
  /** Aborted by the first of them. */
  readonly begun: AbortSignal
  retire(): void
  drain(): void
  interrupt(reason: string, graceMs: number): void
  /** Without a master: the phases of a stop on a deadline of its own. */
  alone(): void
}

function createLeaving(options: WorkerChildOptions): Leaving {
  const { port, workload, log, clock, exit } = options
  const begun = new AbortController()
  let interrupted = false
  let left = false

  const leave = async (code: number, limitMs: number): Promise<void> => {
    if (left) return
    left = true
    await withLimit(workload.close(limitMs), limitMs).catch((error: unknown) =>
      log.warn({ reason: messageOf(error) }, 'the queue connections did not close'),
    )
    // Without it the master takes the end for that of a handler, and looks after the jobs.
    const goodbye: Report = { type: 'left' }
    const told = Promise.all([tellCounts(options), port.send(goodbye)])
    await withLimit(told, goodbyeMs).catch(() => undefined)
    exit(code)
  }
  const retire = async (): Promise<void> => {
    workload.quiet()
    while (workload.busy()) await clock.sleep(pollMs)
    await leave(0, 2_000)
  }
  const drain = async (): Promise<void> => {
    await workload.drain()
    if (!interrupted) await leave(0, 2_000)
  }
  const interrupt = async (reason: string, graceMs: number): Promise<void> => {
    if (interrupted) return
    interrupted = true
    // Whatever hangs, this process is gone before the master would have to kill it.
    setTimeout(() => exit(forcedCode), graceMs * 0.95)
    let code = 0
    try {
      await withLimit(workload.interrupt(reason, divideGrace(graceMs).obeyMs), graceMs * 0.85)
    } catch (error) {
      log.error({ reason: messageOf(error) }, 'not every job could be handed back')
      code = forcedCode
    }
    if (workload.busy()) code = forcedCode
    await leave(code, graceMs * 0.1)
  }
  const run = (work: Promise<void>): void => {
    begun.abort()
    work.catch((error: unknown) => {
      log.error({ reason: messageOf(error) }, 'the child could not end in order')
      exit(forcedCode)
    })
  }

  return {
    begun: begun.signal,
    retire: () => run(retire()),
    drain: () => run(drain()),
    interrupt: (reason, graceMs) => run(interrupt(reason, graceMs)),
    alone: () => {
      const plan = planStop(options.shutdownMs)
      run(drain())
      setTimeout(() => run(interrupt('the master is gone', plan.killMs - plan.interruptMs)), plan.interruptMs)
      setTimeout(() => exit(forcedCode), plan.exitMs)
    },
  }
}
