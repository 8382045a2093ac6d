import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import { withLimit } from '../../core/lifecycle.ts'
import type { Log } from '../../platform/log.ts'
import { type ActiveJob, beatMs, type Command, type Report } from '../../platform/processes/messages.ts'
import type { ExitProcess, ParentPort } from '../../platform/processes/signals.ts'
import { divideGrace, planStop } from '../../platform/processes/stop-plan.ts'

/** The jobs of a child: what the master's commands are carried out on. */
export interface Workload {
  readonly queues: readonly string[]
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
  /** The deadline when the master is dead, ms. */
  shutdownMs: number
  watchdogMs: number
  clock: Clock
  log: Log
  exit: ExitProcess
}

const forcedCode = 75
const pollMs = 50

/** Says `ready`, then obeys the master until it is told to end, or the master is dead. */
export function runWorkerChild(options: WorkerChildOptions): void {
  const { port, workload, log } = options
  const send = (report: Report): void => void port.send(report)
  const beat = (): void =>
    send({ type: 'beat', active: workload.active(), rssBytes: process.memoryUsage.rss() })
  const leaving = createLeaving(options)

  let isQuiet = false
  const start = async (): Promise<void> => {
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
  send({ type: 'ready', queues: [...workload.queues] })
}

/** The ways out of a child. Each may follow the ones before it; the first to come to an end ends the process. */
interface Leaving {
  retire(): void
  drain(): void
  interrupt(reason: string, graceMs: number): void
  /** Without a master: the phases of a stop on a deadline of its own. */
  alone(): void
}

function createLeaving(options: WorkerChildOptions): Leaving {
  const { workload, log, clock, exit } = options
  let interrupted = false
  let left = false

  const leave = async (code: number, limitMs: number): Promise<void> => {
    if (left) return
    left = true
    await withLimit(workload.close(limitMs), limitMs).catch((error: unknown) =>
      log.warn({ reason: messageOf(error) }, 'the queue connections did not close'),
    )
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
  const run = (work: Promise<void>): void =>
    void work.catch((error: unknown) => {
      log.error({ reason: messageOf(error) }, 'the child could not end in order')
      exit(forcedCode)
    })

  return {
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
