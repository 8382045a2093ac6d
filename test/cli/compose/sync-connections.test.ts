import { pino } from 'pino'
import { expect, it } from 'vitest'
import { createSyncService, createSyncWeb } from '../../../src/cli/compose/sync.ts'
import { syncConnections } from '../../../src/cli/compose/sync-connections.ts'
import { createSystemClock } from '../../../src/core/clock.ts'
import { createReleasers } from '../../../src/core/lifecycle.ts'
import { createAuditLog } from '../../../src/platform/access/audit-log.ts'
import { loadConfig } from '../../../src/platform/config/config.ts'
import { createMetrics } from '../../../src/platform/metrics.ts'
import { createPostgres, type Postgres } from '../../../src/platform/postgres/postgres.ts'
import { createSite } from '../../../src/platform/replication/site.ts'
import { testDatabase } from '../../support/databases.ts'
import { atEndOfTest, eventually } from '../../support/processes.ts'

const connectionsOf = async (postgres: Postgres): Promise<number> => {
  const { rows } = await postgres.query<{ n: number }>(
    `SELECT count(*)::int AS n FROM pg_stat_activity
     WHERE application_name = 'baton sync' AND datname = current_database()`,
  )
  return rows[0]?.n ?? 0
}

it('opens no connection for replication while the site is alone, and few once it leads', async () => {
  const { url } = await testDatabase()
  const clock = createSystemClock()
  const postgres = createPostgres({ url, max: 3, applicationName: 'test', onError: () => undefined })
  let looks = 0
  const counting: Postgres = {
    ...postgres,
    query: (sql, values) => {
      looks++
      return postgres.query(sql, values)
    },
  }
  const log = pino({ level: 'silent' })
  const releasers = createReleasers(() => undefined)
  const config = loadConfig({ DATABASE_URL: url, BATON_SECRET: 'a-secret-of-both-sites-0123456789' })
  const parts = { config, clock, log, metrics: createMetrics(), postgres: counting, releasers }
  const service = createSyncService(parts, [])
  const web = createSyncWeb(parts, {
    types: [],
    audit: createAuditLog({ postgres }),
    onSuperseded: () => undefined,
  })
  atEndOfTest(async () => {
    await service.stop()
    await releasers.release()
    await postgres.close()
  })
  await service.start()
  expect(await web.replicas.list()).toMatchObject({ site: { role: 'alone' }, replicas: [] })
  looks = 0
  // It looks again whether it is alone.
  await eventually(async () => expect(looks).toBeGreaterThan(0), { timeoutMs: 20_000 })
  expect(await connectionsOf(postgres)).toBe(0)
  await createSite({ postgres }).lead()
  await eventually(async () => expect(await connectionsOf(postgres)).toBeGreaterThan(0), {
    timeoutMs: 20_000,
  })
  expect(await connectionsOf(postgres)).toBeLessThanOrEqual(syncConnections)
}, 60_000)
