import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import type { Clock } from '../../core/clock.ts'
import { codeOf, messageOf } from '../../core/errors.ts'
import type { Config } from '../../platform/config/config.ts'
import type { Log } from '../../platform/log.ts'
import { createEmbeddedPostgres } from '../../platform/postgres/embedded.ts'
import { assertMigrated } from '../../platform/postgres/migrate.ts'
import { createPostgres, type Postgres } from '../../platform/postgres/postgres.ts'
import { assertQueuesMigrated } from '../../platform/queues/migrate.ts'
import { release } from '../release.ts'

/** What Baton keeps beside itself: the embedded Postgres, bodies, debts of a stop. */
export const stateFolder = (): string => path.resolve('.baton')

export interface Database {
  url: string
  close(): Promise<void>
}

/**
 * The Postgres of DATABASE_URL; in development without one, an embedded Postgres under `.baton/`, brought up to
 * date, since nobody else would. The first process to come runs it and leaves its address in a file, by which
 * `keys create` in a second terminal finds the server of `dev` in the first.
 */
export async function openDatabase(config: Config, log: Log): Promise<Database> {
  if (config.databaseUrl) return { url: config.databaseUrl, close: async () => undefined }
  const running = await readRunning()
  if (running) return { url: running, close: async () => undefined }
  await mkdir(stateFolder(), { recursive: true })
  const embedded = createEmbeddedPostgres({
    dataDir: path.join(stateFolder(), 'postgres'),
    log: (line) => log.debug({ line }, 'embedded Postgres'),
    onExit: (exit) => log.error({ exit }, 'the embedded Postgres has ended'),
  })
  const { url } = await embedded.start()
  try {
    await release(url)
    // It holds the password of the server, so nobody else may read it.
    await writeFile(addressFile(), url, { mode: 0o600 })
  } catch (error) {
    await embedded.stop()
    throw error
  }
  return {
    url,
    close: async () => {
      await rm(addressFile(), { force: true })
      await embedded.stop()
    },
  }
}

const addressFile = (): string => path.join(stateFolder(), 'postgres-url')

async function readRunning(): Promise<string | undefined> {
  const url = await readFile(addressFile(), 'utf8').catch(() => undefined)
  if (!url) return undefined
  const onError = (): void => undefined
  const postgres = createPostgres({
    url,
    max: 1,
    applicationName: 'baton look-up',
    maxWaitMs: 1_000,
    onError,
  })
  try {
    await postgres.query('SELECT 1')
    return url
  } catch {
    // Left behind by a process that was killed.
    return undefined
  } finally {
    await postgres.close()
  }
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
  await waitForPostgres(
    async () => {
      await assertMigrated(postgres)
      if (!config.redisUrl) await assertQueuesMigrated(postgres.url)
    },
    { clock, log, limitMs },
  )
}

/** Repeats the work until Postgres answers it. @throws what it threw last, after `limitMs`; other errors at once */
export async function waitForPostgres(
  work: () => Promise<void>,
  { clock, log, limitMs }: { clock: Clock; log: Log; limitMs: number },
): Promise<void> {
  const untilMs = clock.monotonicMs() + limitMs
  for (let attempt = 1; ; attempt++) {
    try {
      return await work()
    } catch (error) {
      const mayHeal = patience.has(codeOf(error) ?? '')
      if (!mayHeal || clock.monotonicMs() + retryMs > untilMs) throw error
      if (attempt === 1) log.warn({ reason: messageOf(error) }, 'waiting for Postgres')
      await clock.sleep(retryMs)
    }
  }
}
