import type { Clock } from '../core/clock.ts'
import { messageOf } from '../core/errors.ts'
import type { Log } from './log.ts'

/** Tells of troubles that heal by themselves and come again and again until they do: a store that is away. */
export interface TroubleLog {
  /** Logs the first of a kind, then at most one in `everyMs`, with how many there were. */
  tell(message: string, error: unknown): void
}

/** How often a trouble that goes on is told again, ms. */
const usualMs = 60_000

export function createTroubleLog(log: Log, clock: Clock, everyMs = usualMs): TroubleLog {
  const told = new Map<string, { atMs: number; held: number }>()
  return {
    tell: (message, error) => {
      const now = clock.monotonicMs()
      const last = told.get(message)
      if (last && now - last.atMs < everyMs) {
        last.held++
        return
      }
      told.set(message, { atMs: now, held: 0 })
      log.warn({ reason: messageOf(error), ...(last?.held ? { timesBefore: last.held } : {}) }, message)
    },
  }
}
