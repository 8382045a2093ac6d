import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import { withLimit } from '../../core/lifecycle.ts'
import type { Log } from '../log.ts'
import type { ShutdownDebts } from './shutdown-debts.ts'

/** Something to do last, when no job runs any more: a final flush. */
export interface ShutdownHook {
  /** Stands in a debt; the same at the next boot. */
  name: string
  /** Longest time it gets, ms. */
  limitMs: number
  /** Must bear to be run again, in another process: as a debt it is. */
  run(signal: AbortSignal): Promise<void>
}

export interface ShutdownHooks {
  /**
   * Runs the hooks in their order until `deadlineAt` (monotonic). What failed or did not fit becomes a debt.
   * @returns the names of those
   */
  run(deadlineAt: number): Promise<string[]>
  /** Runs what earlier stops left undone; before work is taken. One that fails stays a debt. */
  settle(): Promise<void>
}

export interface ShutdownHooksOptions {
  hooks: ShutdownHook[]
  debts: ShutdownDebts
  clock: Clock
  log: Log
}

/** Kept back from the hooks' time to record what did not fit, ms. */
const recordMs = 1_000

export function createShutdownHooks({ hooks, debts, clock, log }: ShutdownHooksOptions): ShutdownHooks {
  const runOne = async (hook: ShutdownHook, limitMs: number): Promise<string | undefined> => {
    if (limitMs <= 0) return 'no time was left'
    const controller = new AbortController()
    try {
      await withLimit(hook.run(controller.signal), limitMs)
      return undefined
    } catch (error) {
      return messageOf(error)
    } finally {
      controller.abort()
    }
  }

  return {
    run: async (deadlineAt) => {
      const left = (): number => deadlineAt - clock.monotonicMs()
      const reserve = Math.min(recordMs, left() / 3)
      const owed: { hook: string; reason: string }[] = []
      for (const hook of hooks) {
        const reason = await runOne(hook, Math.min(hook.limitMs, left() - reserve))
        if (reason === undefined) continue
        owed.push({ hook: hook.name, reason })
        log.error({ hook: hook.name, reason }, 'shutdown hook did not finish; the next boot runs it')
      }
      if (owed.length > 0) await debts.record(owed, left())
      return owed.map(({ hook }) => hook)
    },
    settle: () =>
      debts.settle(async (name) => {
        const hook = hooks.find((each) => each.name === name)
        if (!hook) return false
        log.info({ hook: name }, 'running a shutdown hook that an earlier stop left undone')
        const reason = await runOne(hook, hook.limitMs)
        if (reason !== undefined) log.error({ hook: name, reason }, 'the hook failed again and stays a debt')
        return reason === undefined
      }),
  }
}
