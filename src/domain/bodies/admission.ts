import type { Clock } from '../../core/clock.ts'
import { BODY_OVERLOADED } from './errors.ts'

/** Lets a bounded number in, and a bounded number wait for a bounded time: beyond that the answer is no, at once. */
export interface Admission {
  /**
   * @returns what gives the place back; calling it again does nothing
   * @throws BODY_OVERLOADED
   */
  enter(signal?: AbortSignal): Promise<() => void>
  load(): { active: number; waiting: number }
}

export interface AdmissionOptions {
  clock: Clock
  maxActive: number
  maxWaiting: number
  maxWaitMs: number
}

export function createAdmission(options: AdmissionOptions): Admission {
  const waiters: (() => void)[] = []
  let active = 0

  const leave = (): void => {
    // The place goes to the next in line directly, so that no newcomer can overtake.
    const next = waiters.shift()
    if (next) next()
    else active--
  }

  const wait = async (signal: AbortSignal | undefined): Promise<boolean> => {
    const turn = Promise.withResolvers<void>()
    const patience = new AbortController()
    const impatient = signal ? AbortSignal.any([patience.signal, signal]) : patience.signal
    waiters.push(turn.resolve)
    await Promise.race([turn.promise, options.clock.sleep(options.maxWaitMs, impatient)])
    patience.abort('settled')
    const index = waiters.indexOf(turn.resolve)
    if (index === -1) return true
    waiters.splice(index, 1)
    return false
  }

  return {
    enter: async (signal) => {
      signal?.throwIfAborted()
      if (active < options.maxActive) active++
      else if (waiters.length >= options.maxWaiting || !(await wait(signal))) {
        signal?.throwIfAborted()
        throw BODY_OVERLOADED({ waiting: waiters.length }, { retryAfterMs: 1_000 })
      }
      let left = false
      return () => {
        if (left) return
        left = true
        leave()
      }
    },
    load: () => ({ active, waiting: waiters.length }),
  }
}
