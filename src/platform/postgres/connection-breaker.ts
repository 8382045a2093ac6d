import type pg from 'pg'

/** Makes a pool content with the connections that it has, for a while after Postgres has refused it another. */
export interface ConnectionBreaker {
  /** Postgres said "too many connections". */
  trip(): void
  close(): void
}

const shortestMs = 1_000
const longestMs = 5_000

/**
 * A pool that is refused a connection asks again for each caller that waits: with many processes these attempts keep
 * Postgres from serving the connections that it has granted. So for some seconds, not the same in each process, the
 * callers share what is there; they wait in the pool's bounded queue, which is what slows the intake.
 */
export function createConnectionBreaker(pool: pg.Pool, max: number): ConnectionBreaker {
  let timer: NodeJS.Timeout | undefined
  const heal = (): void => {
    timer = undefined
    pool.options.max = max
  }
  return {
    trip: () => {
      pool.options.max = Math.max(1, pool.totalCount)
      timer ??= setTimeout(heal, shortestMs + Math.random() * (longestMs - shortestMs)).unref()
    },
    close: () => clearTimeout(timer),
  }
}
