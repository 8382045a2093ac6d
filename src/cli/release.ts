import { migrate } from '../platform/postgres/migrate.ts'
import { migrateQueues } from '../platform/queues/migrate.ts'

/**
 * Brings the schema up to date, Baton's and BullMQ's. Idempotent, and safe side by side.
 * @returns what was applied now
 */
export async function release(databaseUrl: string): Promise<string[]> {
  const applied = await migrate(databaseUrl)
  await migrateQueues(databaseUrl)
  return applied
}
