import { describe, expect, it } from 'vitest'
import type { Clock } from '../../../src/core/clock.ts'
import { createBodies } from '../../../src/domain/bodies/bodies.ts'
import { createPushes } from '../../../src/domain/push/delivery-log.ts'
import { createPushInspection } from '../../../src/domain/push/inspection.ts'
import { createStateAdministration } from '../../../src/domain/state/administration.ts'
import type { AuditLog } from '../../../src/platform/access.ts'
import { createLog } from '../../../src/platform/log.ts'
import { migrate } from '../../../src/platform/postgres/migrate.ts'
import type { Postgres } from '../../../src/platform/postgres/postgres.ts'
import { readLatestRuns } from '../../../src/platform/queues/latest-runs.ts'
import { createLedger } from '../../../src/platform/queues/ledger-postgres.ts'
import type { DashboardPage } from '../../../src/runtime/dashboard/page.ts'
import { createBodiesPage, upkeepJobs } from '../../../src/runtime/dashboard/pages/bodies.ts'
import { createDevicesPage } from '../../../src/runtime/dashboard/pages/devices.ts'
import { createPushPage } from '../../../src/runtime/dashboard/pages/push.ts'
import { createPushesPage } from '../../../src/runtime/dashboard/pages/pushes.ts'
import { createStatesPage } from '../../../src/runtime/dashboard/pages/states.ts'
import { testDatabase } from '../../support/databases.ts'
import { eventually } from '../../support/processes.ts'
import { startPostgres, startRedis } from '../../support/servers.ts'
import { connect } from '../../support/state.ts'
import { environmentKeys, startDashboard } from './dashboard-harness.ts'

function pushPages(postgres: Postgres, clock: Clock, audit: AuditLog): DashboardPage[] {
  const inspection = createPushInspection(postgres)
  return [
    createPushesPage({ clock, inspection }),
    createPushPage({ inspection, pushes: createPushes(postgres), audit }),
    createDevicesPage({ inspection, flood: { intervalMs: 60_000, burst: 3 } }),
  ]
}

function statesPage(database: Postgres, clock: Clock, audit: AuditLog): DashboardPage {
  const log = createLog({ level: 'silent', process: 'test' })
  const states = createStateAdministration({ database, clock, log, connect })
  return createStatesPage({ states, enqueue: async () => undefined, audit })
}

function bodiesPage(postgres: Postgres, clock: Clock, audit: AuditLog): DashboardPage {
  const log = createLog({ level: 'silent', process: 'test' })
  const { upkeep } = createBodies({ stores: [], postgres, clock, log })
  const ledger = createLedger({ postgres, clock })
  const runs = () => readLatestRuns({ postgres, ledger, names: upkeepJobs })
  return createBodiesPage({ clock, upkeep, runs, begin: async () => true, audit })
}

describe('the dashboard', () => {
  it('says that the queue engine is away, shows the rest, and recovers by itself', async () => {
    const redis = await startRedis()
    const dashboard = await startDashboard({
      databaseUrl: (await testDatabase()).url,
      engine: { kind: 'redis', url: redis.url },
    })
    try {
      const browser = await dashboard.logIn(environmentKeys.viewer)
      await dashboard.addFailed({ queue: 'heavy' })
      await browser.get('/dashboard/queues/api/queues')
      for (const takeAway of [() => redis.kill(), () => redis.freeze(true)]) {
        await takeAway()
        const page = await eventually(
          async () => {
            const shown = await browser.page('/dashboard')
            expect(shown).toContain('The queue engine is away')
            return shown
          },
          { timeoutMs: 30_000, everyMs: 300 },
        )
        expect(page).toMatch(/not reachable<\/span> <code>[A-Z_]+</)
        expect(page).toMatch(/Queue">heavy<.*?Failed"><a[^>]*>1</s)
        expect(page).not.toContain('0 waiting, 0 delayed')
        const board = await browser.get('/dashboard/queues/api/queues?page=1&jobsPerPage=10')
        expect(board.status).toBe(503)
        expect(await board.text()).not.toContain('127.0.0.1')
        await redis.freeze(false)
        await redis.restart()
        await eventually(
          async () => expect(await browser.page('/dashboard')).not.toContain('not reachable'),
          {
            timeoutMs: 30_000,
            everyMs: 300,
          },
        )
      }
    } finally {
      await dashboard.close()
    }
  }, 60_000)

  it('says that Postgres is away instead of showing zeros, and works again when it is back', async () => {
    const [server, redis] = await Promise.all([startPostgres(), startRedis()])
    await migrate(server.url)
    const dashboard = await startDashboard({
      databaseUrl: server.url,
      engine: { kind: 'redis', url: redis.url },
      pagesOf: ({ postgres, clock, audit }) => [
        ...pushPages(postgres, clock, audit),
        statesPage(postgres, clock, audit),
        bodiesPage(postgres, clock, audit),
      ],
    })
    try {
      const browser = await dashboard.logIn(environmentKeys.operator)
      const id = await dashboard.addFailed()
      await server.kill()
      const page = await eventually(async () => {
        const shown = await browser.page('/dashboard')
        expect(shown).toContain('Not known: this could not be read')
        return shown
      })
      expect(page).not.toContain('class="tile-figure"')
      expect(page).toContain('answered in')
      expect(page).toMatch(/Pushes<\/a><\/dt><dd>.*could not be read \(<code>DATABASE_/s)
      expect(page).toMatch(/Device state<\/a><\/dt><dd>.*could not be read \(<code>DATABASE_/s)
      expect(page).toMatch(/Bodies<\/a><\/dt><dd>.*could not be read \(<code>DATABASE_/s)
      const areas = [
        '/pushes',
        `/pushes/${id}`,
        '/devices',
        '/devices/phone',
        '/states',
        `/states/${id}`,
        '/bodies',
      ]
      for (const path of ['/jobs', '/failed', '/audit', '/keys', `/jobs/${id}`, ...areas]) {
        const answer = await browser.get(`/dashboard${path}`)
        expect(answer.status).toBe(503)
        expect(await answer.text()).toMatch(/DATABASE_(UNAVAILABLE|OVERLOADED)/)
      }
      const act = await browser.post(`/dashboard/jobs/${id}/retry`)
      expect(act.status).toBe(503)
      // A key of the environment lets somebody in to see what is wrong.
      expect((await dashboard.logIn(environmentKeys.viewer)).cookie).toContain('baton_dashboard=')
      await server.restart()
      await eventually(
        async () => expect(await browser.page('/dashboard')).toContain('class="tile-figure"'),
        {
          timeoutMs: 30_000,
        },
      )
      expect((await dashboard.ledger.get(id))?.state).toBe('failed')
    } finally {
      await dashboard.close()
    }
  }, 60_000)
})
