import { describe, expect, it } from 'vitest'
import { assertQueuesMigrated, migrateQueues } from '../../../src/platform/queues/migrate.ts'
import { startPostgres } from '../../support/servers.ts'

describe('the migration of the queue engine', () => {
  it('may run side by side and again, and is missed when it did not run', async () => {
    const { url } = await startPostgres()
    await expect(assertQueuesMigrated(url)).rejects.toMatchObject({ code: 'DATABASE_NOT_MIGRATED' })
    const versions = await Promise.all([migrateQueues(url), migrateQueues(url), migrateQueues(url)])
    expect(new Set(versions).size).toBe(1)
    expect(await migrateQueues(url)).toBe(versions[0])
    await assertQueuesMigrated(url)
  })
})
