import type { ActiveRun } from './active-run.ts'

/**
 * A process that dies takes all of its runs with it, and nobody can tell which of them was the cause. Jobs that were
 * there several times are suspects. Of these a process runs one at a time: so the next deaths are counted against the
 * one that causes them, and the others end in peace instead of being set aside beside it.
 */
export interface Suspects {
  /** False: another suspect runs here; this one has to wait. */
  admits(run: ActiveRun, crashes: number): boolean
}

/** Once may be anybody's bad luck. Below the number at which a job is set aside as poison. */
const suspectAt = 2

export function createSuspects(): Suspects {
  let current: ActiveRun | undefined
  return {
    admits: (run, crashes) => {
      if (crashes < suspectAt) return true
      if (current && !current.settled) return false
      current = run
      return true
    },
  }
}
