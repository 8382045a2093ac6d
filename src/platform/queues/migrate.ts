import { assertSchemaCompatibility, LATEST_SCHEMA_VERSION, runMigrations } from 'bullmq'
import { codeOf, messageOf } from '../../core/errors.ts'
import { DATABASE_NOT_MIGRATED } from '../postgres/errors.ts'
import { connectOnce } from '../postgres/session.ts'

/**
 * Brings the tables of BullMQ's Postgres engine, in the schema `bullmq`, to the version of this release. May be
 * repeated and run side by side: BullMQ does all of it in one transaction under a lock.
 *
 * @returns the version that the schema has now
 */
export async function migrateQueues(url: string): Promise<number> {
  const session = await connectOnce(url, 'baton release')
  try {
    return await runMigrations(session.client)
  } finally {
    await session.close()
  }
}

/** @throws DATABASE_NOT_MIGRATED, so that a worker says what is missing instead of failing on its first fetch */
export async function assertQueuesMigrated(url: string): Promise<void> {
  const session = await connectOnce(url, 'baton')
  try {
    const version = await assertSchemaCompatibility(session.client).catch((error: unknown) => {
      if (codeOf(error) !== undefined) throw error
      throw DATABASE_NOT_MIGRATED({ pending: messageOf(error) }, { cause: error })
    })
    if (version < LATEST_SCHEMA_VERSION) {
      throw DATABASE_NOT_MIGRATED({ pending: `bullmq ${version + 1} to ${LATEST_SCHEMA_VERSION}` })
    }
  } finally {
    await session.close()
  }
}
