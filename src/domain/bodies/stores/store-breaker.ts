import { backoffMs } from '../../../core/backoff.ts'
import type { Clock } from '../../../core/clock.ts'
import type { Metrics } from '../../../platform/metrics.ts'
import { BODY_UNAVAILABLE } from '../errors.ts'

/** Keeps callers from a store that is away: it costs one deadline then, and not one for each of them. */
export interface StoreBreaker {
  /**
   * To be called before a request. What it returns is to be told how that ended, once.
   *
   * @throws BODY_UNAVAILABLE while the store is given a rest, or while somebody else looks whether it is back
   */
  enter(): Attempt
}

export interface Attempt {
  answered(): void
  /** `silent`: it let the whole deadline pass. Another one like that would cost too much to wait for. */
  failed(how: { silent: boolean }): void
  /** It says nothing about the store: the caller gave up. */
  dropped(): void
}

export interface StoreBreakerOptions {
  /** Of the store, for messages and metrics. */
  store: string
  clock: Clock
  /** So many failures in a row open it, and a single silence; 3 unless said, Infinity for never. */
  failures?: number
  metrics?: Metrics | undefined
}

/** Between one and five seconds, not the same in each process. */
const rest = { baseMs: 2_000, maxMs: 5_000 }

export function createStoreBreaker(options: StoreBreakerOptions): StoreBreaker {
  const { store, clock, metrics } = options
  const threshold = options.failures ?? 3
  let inARow = 0
  let opened = 0
  let closedUntilMs = 0
  let probing = false

  const open = (): void => {
    opened++
    closedUntilMs = clock.monotonicMs() + backoffMs(opened, rest)
  }
  const refuse = (reason: string): Error => {
    metrics?.count('baton_body_store_refusals_total', { store })
    return BODY_UNAVAILABLE(
      { store, reason },
      { retryAfterMs: Math.max(200, closedUntilMs - clock.monotonicMs()) },
    )
  }

  return {
    enter: () => {
      if (closedUntilMs > clock.monotonicMs())
        throw refuse('it was away a moment ago, and is not asked at once')
      if (probing) throw refuse('it was away, and is being asked whether it is back')
      const isProbe = inARow >= threshold
      probing = isProbe
      const settle = (): void => {
        if (isProbe) probing = false
      }
      return {
        answered: () => {
          settle()
          // A request that was sent before the store went away may be answered after others have failed.
          if (!isProbe && closedUntilMs > clock.monotonicMs()) return
          inARow = 0
          opened = 0
        },
        failed: ({ silent }) => {
          settle()
          metrics?.count('baton_body_store_failures_total', { store })
          inARow = silent && Number.isFinite(threshold) ? Math.max(threshold, inARow + 1) : inARow + 1
          // Those that were under way when it opened tell nothing new.
          if (inARow >= threshold && closedUntilMs <= clock.monotonicMs()) open()
        },
        dropped: settle,
      }
    },
  }
}
