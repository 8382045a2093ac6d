import path from 'node:path'
import type { Clock } from '../../core/clock.ts'
import { codeOf, messageOf } from '../../core/errors.ts'
import type { Config } from '../../platform/config/config.ts'
import type { Log } from '../../platform/log.ts'
import { createEmbeddedPostgres } from '../../platform/postgres/embedded.ts'
import { assertMigrated, migrate } from '../../platform/postgres/migrate.ts'
import type { Postgres } from '../../platform/postgres/postgres.ts'
import { assertQueuesMigrated, migrateQueues } from '../../platform/queues/migrate.ts'

/** What Baton keeps beside itself: the embedded Postgres, bodies, debts of a stop. */
export const stateFolder = (): string => path.resolve('.baton')

export interface Database {
  url: string
  close(): Promise<void>
}

/**
 * The Postgres of DATABASE_URL; in development without one, an embedded Postgres under `.baton/`, brought up to
 * date, since nobody else would.
 *
 * @throws EMBEDDED_POSTGRES_FAILED, also when another process of Baton runs it: use `baton dev`, or DATABASE_URL
 */
export async function openDatabase(config: Config, log: Log): Promise<Database> {
  if (config.databaseUrl) return { url: config.databaseUrl, close: async () => undefined }
  const embedded = createEmbeddedPostgres({
    dataDir: path.join(stateFolder(), 'postgres'),
    log: (line) => log.debug({ line }, 'embedded Postgres'),
    onExit: (exit) => log.error({ exit }, 'the embedded Postgres has ended'),
  })
  const { url } = await embedded.start()
  try {
    await migrate(url)
    await migrateQueues(url)
  } catch (error) {
    await embedded.stop()
    throw error
  }
  return { url, close: () => embedded.stop() }
}

const patience = new Set(['DATABASE_UNAVAILABLE', 'DATABASE_OVERLOADED'])
const retryMs = 500

/**
 * Waits for a Postgres that is not up yet: platforms start everything at once.
 *
 * @throws DATABASE_NOT_MIGRATED at once, DATABASE_UNAVAILABLE after `limitMs`
 */
export async function assertDatabaseReady(
  config: Config,
  { postgres, clock, log }: { postgres: Postgres; clock: Clock; log: Log },
  limitMs: number,
): Promise<void> {
  const untilMs = clock.monotonicMs() + limitMs
  for (let attempt = 1; ; attempt++) {
    try {
      await assertMigrated(postgres)
      if (!config.redisUrl) await assertQueuesMigrated(postgres.url)
      return
    } catch (error) {
      const mayHeal = patience.has(codeOf(error) ?? '')
      if (!mayHeal || clock.monotonicMs() + retryMs > untilMs) throw error
      if (attempt === 1) log.warn({ reason: messageOf(error) }, 'waiting for Postgres')
      await clock.sleep(retryMs)
    }
  }
}
