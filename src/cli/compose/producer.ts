import type { Config } from '../../platform/config/config.ts'
import { createLog } from '../../platform/log.ts'
import type { Postgres } from '../../platform/postgres/postgres.ts'
import { type Acceptance, createAcceptance } from '../../platform/queues/accept.ts'
import type { Ledger } from '../../platform/queues/ledger.ts'
import type { PayloadStore } from '../../platform/queues/payload-store.ts'
import type { Registry } from '../../platform/queues/registry.ts'
import type { WakeBus } from '../../platform/wake-bus.ts'
import { createGround } from '../compose.ts'
import { loadJobs } from '../load-jobs.ts'
import { assertDatabaseReady, openDatabase } from './database.ts'

/** What a command needs to look at jobs and to bring some in. */
export interface Producer {
  registry: Registry
  ledger: Ledger
  acceptance: Acceptance
  payloads: PayloadStore
  postgres: Postgres
  wakeBus: WakeBus
}

/** Opens the stores for one command, and closes them when it is done. */
export async function withProducer<T>(config: Config, work: (producer: Producer) => Promise<T>): Promise<T> {
  const registry = await loadJobs(config.jobsModule)
  const quiet = { ...config, logLevel: 'error' as const }
  const ground = await openGround(quiet)
  try {
    const { ledger, payloads, postgres, wakeBus } = ground
    // Away or not: the rows are in, and the reconciler adds what is missing.
    const acceptance = createAcceptance({ ...ground, onError: () => undefined })
    const result = await work({ registry, ledger, acceptance, payloads, postgres, wakeBus })
    await acceptance.idle()
    return result
  } finally {
    await ground.releasers.release()
  }
}

/** A ground for one command, its stores reached. Whoever takes it releases it. */
export async function openGround(config: Config): Promise<ReturnType<typeof createGround>> {
  const database = await openDatabase(config, createLog({ level: config.logLevel, process: 'command' }))
  const ground = createGround(config, {
    process: 'command',
    databaseUrl: database.url,
    connections: 2,
    queueConnections: 2,
    queryTimeoutMs: 30_000,
  })
  ground.releasers.add('database', () => database.close())
  await assertDatabaseReady(config, ground, 5_000)
  return ground
}
