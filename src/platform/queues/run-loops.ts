import { isWritable, stopRun } from './active-run.ts'
import { JOB_CONTEXT_MISUSED, JOB_INTERRUPTED } from './errors.ts'
import { iterate, type LoopHost } from './iterate.ts'
import type { IterateOptions, Source } from './job.ts'
import type { ContextOptions } from './job-context.ts'
import type { RunCheckpoints } from './run-checkpoints.ts'

/** Binds the loops of one run to its checkpoints, its stop and the drain of its process. */
export interface RunLoops {
  loop<T>(source: Source<T, unknown>, how: IterateOptions<T, unknown>): AsyncGenerator<T, void, undefined>
}

export function createRunLoops(options: ContextOptions, checkpoints: RunCheckpoints): RunLoops {
  const { run, clock } = options
  const { before, at } = checkpoints
  let open = false
  let yielded = false

  const begin = (): number => {
    if (open) throw JOB_CONTEXT_MISUSED({ what: 'iterates within an iteration; only one of them can count' })
    open = true
    return at.push(before.at?.[at.length] ?? 0) - 1
  }
  const end = (): void => {
    open = false
    run.wake = undefined
  }
  const mustEnd = (saves: boolean): boolean => {
    if (run.stop || run.fenced) return true
    // Without a checkpoint all would be done again: then the run rather uses the time until the deadline.
    return options.draining() && (saves || checkpoints.kept() || !yielded)
  }
  /** Only a drain ends a loop before the run was stopped: then the loop stops its run itself. */
  const ending = (): Error => {
    const reason = 'drain'
    const error = JOB_INTERRUPTED({ reason })
    stopRun(run, { kind: 'interrupt', error, reason, atMs: clock.monotonicMs() })
    return run.stop?.error ?? error
  }
  const wakeWith = (callback: (() => void) | undefined): void => {
    run.wake = callback
  }

  return {
    loop: (source, how) => {
      const saves = how.save !== undefined && !run.delivery.volatile
      let index = 0
      const host: LoopHost<unknown> = {
        clock,
        from: before.value,
        begin: () => {
          index = begin()
          return at[index] ?? 0
        },
        end,
        yielded: () => {
          yielded = true
          at[index] = (at[index] ?? 0) + 1
        },
        mustEnd: () => mustEnd(saves),
        save: (value) => (saves && isWritable(run) ? checkpoints.saveIfAble(value) : Promise.resolve(true)),
        ending,
        onWake: wakeWith,
      }
      return iterate(source, how, host)
    },
  }
}
