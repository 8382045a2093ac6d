import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { createFailOvers } from '../../../src/domain/sync/fail-over/fail-overs.ts'
import { createFailOverRows } from '../../../src/domain/sync/fail-over/rows.ts'
import { readSync } from '../../../src/domain/sync/sync-view.ts'
import type { Postgres } from '../../../src/platform/postgres/postgres.ts'
import { createSite } from '../../../src/platform/replication/site.ts'
import { createSiteWatch, type SiteWatch } from '../../../src/platform/replication/site-watch.ts'
import { createReplicasPage } from '../../../src/runtime/dashboard/pages/replicas.ts'
import { testDatabase, testRedis } from '../../support/databases.ts'
import { type Browser, type DashboardHarness, environmentKeys, startDashboard } from './dashboard-harness.ts'

const evil = `"><script>alert(2)</script>'`
const clock = createSystemClock()

let dashboard: DashboardHarness
let operator: Browser
let viewer: Browser
let watch: SiteWatch
const asked: string[] = []

beforeAll(async () => {
  const [{ url }, redis] = await Promise.all([testDatabase(), testRedis()])
  const holder: { state: SiteWatch['state'] } = { state: undefined }
  dashboard = await startDashboard({
    databaseUrl: url,
    engine: { kind: 'redis', ...redis },
    siteWatch: holder,
    pagesOf: ({ postgres, audit }) => {
      const site = createSite({ postgres, clock })
      watch = createSiteWatch({ site, clock, onError: () => undefined })
      watch.onChange((state) => {
        holder.state = state
      })
      const replicas = {
        list: () => readSync(postgres, { site, name: 'berlin', types: [] }),
        verify: async (name: string) => asked.push(`verify ${name}`),
        approvePlan: async (name: string, plan: string) => asked.push(`approve ${name} ${plan}`),
      }
      return [createReplicasPage({ failOvers: failOversOn(postgres), replicas, audit })]
    },
  })
  operator = await dashboard.logIn(environmentKeys.operator)
  viewer = await dashboard.logIn(environmentKeys.viewer)
})
afterAll(() => dashboard.close())

function failOversOn(postgres: Postgres) {
  const rows = createFailOverRows(postgres)
  const siteOn = (on: Postgres) => createSite({ postgres: on, clock })
  return createFailOvers({
    postgres,
    rows,
    siteOn,
    engine: { step: async () => true },
    name: 'berlin',
    clock,
  })
}

const query = (sql: string, values: unknown[] = []): Promise<unknown> => dashboard.postgres.query(sql, values)
const plan = '00000000-0000-7000-8000-000000000001'

describe('the page of replicas', () => {
  it('tells a site that is alone how to get one', async () => {
    const page = await viewer.page('/dashboard/replicas')
    expect(page).toContain('PUT /v1/replicas/NAME')
    expect(page).not.toContain('takes no writes')
  })

  it('shows role, lag, troubles and plans, and nothing of it as markup', async () => {
    await query(`UPDATE site SET role = 'leader', lineage = gen_random_uuid()`)
    await query(
      `INSERT INTO replicas (name, url, key_sealed, policy, error) VALUES ('paris', $1, 'x', '{"*":"report"}', $2)`,
      [`http://h/${evil}`, JSON.stringify({ code: 'X', message: evil, at: '2026-01-01T00:00:00Z' })],
    )
    await query(
      `INSERT INTO replica_fuses (id, replica, reason, deletes) VALUES ($1, 'paris', 'too many', 60)`,
      [plan],
    )
    const page = await viewer.page('/dashboard/replicas')
    expect(page).toContain('paris')
    expect(page).toContain('too many')
    expect(page).not.toContain('<script>alert')
    // A viewer sees all of it and may do none of it.
    expect(page).not.toContain('Approve')
    expect((await viewer.post('/dashboard/replicas/fail-over', { mode: 'soft', to: 'paris' })).status).toBe(
      403,
    )
    expect(await operator.page('/dashboard/replicas')).toContain('Approve')
  })

  it('lets an operator begin, abort, verify and approve, with the token of the form and a line in the audit log', async () => {
    const forged = await operator.post('/dashboard/replicas/fail-over', {
      mode: 'soft',
      to: 'paris',
      token: 'x',
    })
    expect(forged.status).toBe(403)
    const begun = await operator.post('/dashboard/replicas/fail-over', { mode: 'soft', to: 'paris' })
    expect(begun.headers.get('location')).toContain('notice=fail-over-begun')
    const again = await operator.post('/dashboard/replicas/fail-over', { mode: 'soft', to: 'paris' })
    expect(again.headers.get('location')).toContain('notice=fail-over-running')
    expect(await viewer.page('/dashboard/replicas')).toContain('Fail-over to paris (soft)')
    const aborted = await operator.post('/dashboard/replicas/abort')
    expect(aborted.headers.get('location')).toContain('notice=fail-over-aborted')

    await operator.post('/dashboard/replicas/verify', { name: 'paris' })
    await operator.post('/dashboard/replicas/approve', { name: 'paris', plan })
    expect(asked).toEqual(['verify paris', `approve paris ${plan}`])
    const entries = await dashboard.audit.list({ limit: 4 })
    expect(entries.map(({ action }) => action)).toEqual([
      'replica.approve',
      'replica.verify',
      'fail-over.abort',
      'fail-over.soft',
    ])
  })

  it('has every page say that the site takes no writes', async () => {
    await query(`UPDATE fail_overs SET finished_at = now(), phase = 'aborted'`)
    await query(`UPDATE site SET role = 'replica', intake = 'closed', leader = 'paris'`)
    await watch.refresh()
    for (const path of ['/dashboard', '/dashboard/jobs', '/dashboard/replicas']) {
      expect(await viewer.page(path)).toContain('This site is a replica of paris')
    }
    expect(await operator.page('/dashboard/replicas')).toContain('Take over by force')
    const unconfirmed = await operator.post('/dashboard/replicas/fail-over', {
      mode: 'hard',
      to: 'berlin',
      confirm: 'x',
    })
    expect(unconfirmed.headers.get('location')).toContain('notice=fail-over-unconfirmed')
  })
})
