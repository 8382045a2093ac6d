import type { Clock } from '../../src/core/clock.ts'

/** A clock that goes only when it is turned. */
export interface TurnedClock extends Clock {
  /** Lets time pass. */
  pass(ms: number): void
  /** Sets the wall clock, as NTP or a wrong hand does; time itself goes on. */
  set(epochMs: number): void
}

export function createTurnedClock(startAt = Date.parse('2026-01-02T03:04:05Z')): TurnedClock {
  let wallMs = startAt
  let monotonicMs = 5_000
  return {
    now: () => wallMs,
    monotonicMs: () => monotonicMs,
    sleep: async () => undefined,
    pass: (ms) => {
      wallMs += ms
      monotonicMs += ms
    },
    set: (epochMs) => {
      wallMs = epochMs
    },
  }
}
