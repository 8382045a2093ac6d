import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import type { Log } from '../../platform/log.ts'
import type { Metrics } from '../../platform/metrics.ts'
import { createRestartPolicy, type RestartPolicy } from '../../platform/processes/restart-policy.ts'
import type { Launcher } from './launcher.ts'
import type { Roster } from './roster.ts'
import type { Target } from './target.ts'
import type { ProcessExit, TargetProcess } from './target-process.ts'

/** Sees to it that the current target has a process, and takes note of the ends of all others. */
export interface Keeper {
  /** From now on, for the process that the target has now. */
  watch(target: Target): void
  /** Gives up starting it again. Resolves when nothing of an attempt is left. */
  abandon(target: Target): Promise<void>
}

export interface KeeperOptions {
  roster: Roster
  launcher: Launcher
  metrics: Metrics
  clock: Clock
  log: Log
  /** Aborts when the gateway stops: nothing is started from then on. */
  stopping: AbortSignal
}

interface Revival {
  controller: AbortController
  over: Promise<void>
}

export function createKeeper(options: KeeperOptions): Keeper {
  const { roster, clock, log, stopping } = options
  const revivals = new Map<Target, Revival>()
  /** For a target's whole life: one that always comes up and always dies is slowed down, too. */
  const policies = new WeakMap<Target, RestartPolicy>()

  const policyOf = (target: Target): RestartPolicy => {
    const policy = policies.get(target) ?? createRestartPolicy()
    policies.set(target, policy)
    return policy
  }

  const revive = (target: Target, waitMs: number): void => {
    const controller = new AbortController()
    const signal = AbortSignal.any([controller.signal, stopping])
    const over = startAgain(options, target, { policy: policyOf(target), waitMs, signal }).then((revived) => {
      revivals.delete(target)
      if (revived) watch(target)
    })
    revivals.set(target, { controller, over })
    over.catch((error: unknown) => log.error({ err: error }, 'a target could not be kept'))
  }

  const onDeath = (target: Target, process: TargetProcess, exit: ProcessExit): void => {
    target.output.flush()
    if (target.process !== process) return
    target.process = undefined
    target.up = false
    const line = { revision: target.revision, state: target.state, exit: exit.how }
    if (stopping.aborted || target.state === 'draining') return log.info(line, 'a target has ended')
    options.metrics.count('baton_gateway_target_deaths_total', { state: target.state })
    if (target.state === 'current') {
      roster.save()
      const waitMs = policyOf(target).afterDeath(clock.monotonicMs() - process.startedMs)
      log.error({ ...line, waitMs }, 'the current target has died; it is started again')
      revive(target, waitMs)
    } else {
      roster.remove(target, 'stopped')
      log.error(line, 'a detached target has died; its sessions move to the current one')
    }
  }

  const watch = (target: Target): void => {
    const { process } = target
    if (process) void process.exited.then((exit) => onDeath(target, process, exit))
  }

  return {
    watch,
    abandon: async (target) => {
      const revival = revivals.get(target)
      revival?.controller.abort()
      await revival?.over
    },
  }
}

/** @returns false when it was abandoned */
async function startAgain(
  { roster, launcher, clock, log }: KeeperOptions,
  target: Target,
  { policy, waitMs: firstMs, signal }: { policy: RestartPolicy; waitMs: number; signal: AbortSignal },
): Promise<boolean> {
  for (let waitMs = firstMs; ; ) {
    await clock.sleep(waitMs, signal)
    if (signal.aborted) return false
    try {
      await launcher.bringUp(target, { onProcess: roster.save, signal })
      target.restarts++
      roster.noteUp()
      log.warn({ revision: target.revision, pid: target.process?.record.pid }, 'the current target is back')
      return true
    } catch (error) {
      waitMs = policy.afterDeath(undefined)
      const reason = messageOf(error)
      if (!signal.aborted)
        log.error({ reason, waitMs }, 'the current target does not come up; it is tried again')
    }
  }
}
