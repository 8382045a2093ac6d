import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import { type Service, withLimit } from '../../core/lifecycle.ts'
import type { Log } from '../../platform/log.ts'
import type { NodeHeartbeat } from '../../platform/processes/node-heartbeat.ts'
import type { ShutdownHooks } from '../../platform/processes/shutdown-hooks.ts'
import type { ExitProcess } from '../../platform/processes/signals.ts'
import { hasten, planStop, type StopPlan } from '../../platform/processes/stop-plan.ts'
import type { Supervisor } from '../../platform/processes/supervisor.ts'

export interface StopOptions {
  supervisor: Supervisor
  heartbeat: NodeHeartbeat
  intake: Service[]
  hooks: ShutdownHooks
  shutdownMs: number
  clock: Clock
  log: Log
  /** Ends what the process itself keeps: pools, an embedded server. */
  close(limitMs: number): Promise<void>
  exit: ExitProcess
}

/** The phases of docs/protocols/worker-stop.md. */
export interface Stop {
  /** Begins; the deadline counts from here. */
  begin(cause: string): void
  /** Does not wait for jobs any more. */
  fast(): void
  /** No child ever worked, so there is nothing to wait for: ends with 1. */
  giveUp(): Promise<void>
}

const forcedCode = 75
/** Time between two lines that say what is waited for, ms. */
const sayEveryMs = 5_000
const firstSayMs = 200

export function createStop(options: StopOptions): Stop {
  const { supervisor, clock, log, exit } = options
  const hurry = new AbortController()
  let beganAt = 0
  let plan: StopPlan = planStop(options.shutdownMs)
  let lastResort: NodeJS.Timeout | undefined

  const until = (ms: number): number => Math.max(0, beganAt + ms - clock.monotonicMs())
  const armLastResort = (): void => {
    clearTimeout(lastResort)
    lastResort = setTimeout(() => {
      log.error('the stop did not come to its end in time; leaving all the same')
      exit(forcedCode)
    }, until(plan.exitMs))
  }

  const run = async (cause: string): Promise<void> => {
    const intake = stopIntake(options.intake, log)
    log.info({ cause, shutdownMs: options.shutdownMs }, 'stopping: the children finish what they have')
    const gone = supervisor.gone()
    await endChildren(options, {
      cause,
      toInterruptMs: () => until(plan.interruptMs),
      toKillMs: () => until(plan.killMs),
      hurry: hurry.signal,
    })
    await Promise.race([Promise.all([gone, intake]), clock.sleep(until(plan.hooksMs) / 2)])
    const killed = supervisor.children().length > 0
    const owed = await options.hooks.run(beganAt + plan.hooksMs)
    const left = until(plan.exitMs)
    await options.heartbeat.stop(left * 0.4)
    await withLimit(options.close(left * 0.4), left * 0.4).catch(() => undefined)
    const clean = !killed && supervisor.unclean === 0 && owed.length === 0
    log.info({ clean, tookMs: Math.round(clock.monotonicMs() - beganAt) }, 'worker has stopped')
    exit(clean ? 0 : forcedCode)
  }

  return {
    begin: (cause) => {
      beganAt = clock.monotonicMs()
      armLastResort()
      run(cause).catch((error: unknown) => {
        log.error({ reason: messageOf(error) }, 'the stop failed')
        exit(forcedCode)
      })
    },
    giveUp: () => giveUp(options),
    fast: () => {
      log.warn('stopping fast: jobs are interrupted now')
      plan = hasten(plan, clock.monotonicMs() - beganAt)
      armLastResort()
      hurry.abort()
    },
  }
}

export interface Ending {
  cause: string
  /** How long the children may still drain, ms; asked once. */
  toInterruptMs(): number
  /** How long is left before the kill, ms. */
  toKillMs(): number
  /** Ends the wait for the drain. */
  hurry: AbortSignal
  /** Somebody else ends the children from here on. */
  leave?: AbortSignal
}

/** Phases 1 to 3: drain, interrupt, kill. Ends when no child is left, or all are killed. */
export async function endChildren(
  { supervisor, clock, log }: Pick<StopOptions, 'supervisor' | 'clock' | 'log'>,
  { cause, toInterruptMs, toKillMs, hurry, leave }: Ending,
): Promise<void> {
  const gone = supervisor.gone()
  supervisor.drain()
  const endSaying = saying(supervisor, log)
  await Promise.race([gone, clock.sleep(toInterruptMs(), hurry)])
  endSaying()
  if (leave?.aborted || supervisor.children().length === 0) return
  sayWaiting(supervisor, log)
  supervisor.interrupt(cause, toKillMs())
  await Promise.race([gone, clock.sleep(toKillMs(), leave)])
  if (leave?.aborted) return
  const killed = supervisor.kill()
  if (killed > 0) log.error({ killed }, 'killed the children that were left')
}

async function giveUp({ supervisor, heartbeat, close, exit }: StopOptions): Promise<void> {
  supervisor.drain()
  supervisor.kill()
  await heartbeat.stop(2_000)
  await withLimit(close(2_000), 2_000).catch(() => undefined)
  exit(1)
}

/** A service that hangs on a dead store must not hold up the others, nor the stop. */
export async function stopIntake(intake: Service[], log: Log): Promise<void> {
  await Promise.all(
    intake.map((service) =>
      service.stop().catch((error: unknown) => log.warn({ reason: messageOf(error) }, 'intake did not stop')),
    ),
  )
}

/** The first line comes when the children have answered with what they are doing now. */
function saying(supervisor: Supervisor, log: Log): () => void {
  const first = setTimeout(() => sayWaiting(supervisor, log), firstSayMs)
  const further = setInterval(() => sayWaiting(supervisor, log), sayEveryMs)
  return () => {
    clearTimeout(first)
    clearInterval(further)
  }
}

function sayWaiting(supervisor: Supervisor, log: Log): void {
  for (const child of supervisor.children()) {
    const jobs = child.active.map((job) => job.id)
    if (jobs.length > 0)
      log.info({ slot: child.slot, pid: child.pid, state: child.state, jobs }, 'waiting for jobs')
  }
}
