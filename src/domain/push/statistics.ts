import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import type { Service } from '../../core/lifecycle.ts'
import type { Log } from '../../platform/log.ts'
import type { Postgres } from '../../platform/postgres/postgres.ts'

const everyMs = 2_000
/** Pages that a table may have beyond twice of what the planner knows of. */
const slackPages = 64

const grownText = `
SELECT c.relname AS name FROM pg_class c
 WHERE c.oid IN ('pushes'::regclass, 'devices'::regclass, 'transports'::regclass)
   AND pg_relation_size(c.oid) / current_setting('block_size')::int > 2 * greatest(c.relpages, 0) + ${slackPages}`

/**
 * Tells the planner when a table has outgrown what it knows. Our statements are prepared: planned on an empty
 * table they would read all of it each time, until autovacuum came round a minute later.
 *
 * @returns the tables that were looked at anew
 */
export async function refreshStatistics(postgres: Postgres): Promise<string[]> {
  const { rows } = await postgres.query<{ name: string }>({ name: 'push-grown', text: grownText })
  for (const { name } of rows) await postgres.query(`ANALYZE ${name}`)
  return rows.map((row) => row.name)
}

export interface StatisticsOptions {
  postgres: Postgres
  clock: Clock
  log: Log
}

/** Does so every two seconds. */
export function createStatistics({ postgres, clock, log }: StatisticsOptions): Service {
  const stopping = new AbortController()
  let running: Promise<void> | undefined
  const run = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      await clock.sleep(everyMs * (0.75 + Math.random() / 2), stopping.signal)
      if (stopping.signal.aborted) return
      await refreshStatistics(postgres).catch((error: unknown) =>
        log.debug({ reason: messageOf(error) }, 'the sizes of tables could not be looked at'),
      )
    }
  }
  return {
    start: async () => {
      running ??= run()
    },
    stop: async () => {
      stopping.abort()
      await running
    },
  }
}
