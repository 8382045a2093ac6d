import { backoffMs } from '../../core/backoff.ts'

/** How one slot forks again after a death. */
export interface RestartPolicy {
  /** Notes a death. @returns how long to wait before the next fork, ms */
  afterDeath(upForMs: number | undefined): number
  /** Deaths in a row that came before the child was ever up. */
  readonly failedBoots: number
  /** Deaths in a row, of both kinds, that came too early. */
  readonly failures: number
}

/** A child that was up for this long was healthy. */
const healthyMs = 5_000
/** So many of the young may die before the slot slows down: one bad job is not a bad program. */
const freeDeaths = 3
const bootBackoff = { baseMs: 1_000, maxMs: 60_000 }
/**
 * Those that were up took jobs, and each job that ends them is set aside after five deaths, so this comes to an end by
 * itself. With the long pauses of a boot that fails, one such job in a hundred kept all others waiting for minutes.
 */
const youngBackoff = { baseMs: 1_000, maxMs: 5_000 }

export function createRestartPolicy(random?: () => number): RestartPolicy {
  let failedBoots = 0
  let youngDeaths = 0
  return {
    afterDeath: (upForMs) => {
      if (upForMs === undefined) {
        failedBoots++
        return backoffMs(failedBoots + Math.max(0, youngDeaths - freeDeaths), bootBackoff, random)
      }
      failedBoots = 0
      youngDeaths = upForMs >= healthyMs ? 0 : youngDeaths + 1
      return youngDeaths <= freeDeaths ? 0 : backoffMs(youngDeaths - freeDeaths, youngBackoff, random)
    },
    get failedBoots() {
      return failedBoots
    },
    get failures() {
      return failedBoots + youngDeaths
    },
  }
}
