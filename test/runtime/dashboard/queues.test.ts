import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { testDatabase, testRedis } from '../../support/databases.ts'
import { type Browser, type DashboardHarness, environmentKeys, startDashboard } from './dashboard-harness.ts'

interface Board {
  queues: {
    name: string
    counts: Record<string, number>
    jobs: { id: string; data: unknown }[]
    readOnlyMode: boolean
  }[]
}

const api = '/dashboard/queues/api/queues?activeQueue=default&page=1&jobsPerPage=10'

describe.each(['redis', 'postgres'] as const)('the view of the queue engine on %s', (kind) => {
  let dashboard: DashboardHarness
  let operator: Browser
  const id = crypto.randomUUID()

  beforeAll(async () => {
    const redis = await testRedis()
    const engine = kind === 'redis' ? { kind, ...redis } : { kind }
    dashboard = await startDashboard({ databaseUrl: (await testDatabase()).url, engine })
    operator = await dashboard.logIn(environmentKeys.operator)
    await dashboard.backend.add('default', [
      {
        id,
        name: 'mail',
        delayMs: 0,
        priority: 0,
        volatile: { payload: { pin: 'secret-of-ann' }, attempts: 3, backoff: { baseMs: 1, maxMs: 1 } },
      },
      { id: crypto.randomUUID(), name: 'mail', delayMs: 60_000, priority: 0 },
    ])
  })
  afterAll(() => dashboard.close())

  it('shows the entries of every queue, and of payloads the keys alone', async () => {
    const text = await operator.page(api)
    const board = JSON.parse(text) as Board
    expect(board.queues.map((queue) => queue.name).toSorted()).toEqual(['default', 'heavy'])
    const queue = board.queues.find((each) => each.name === 'default')
    expect(queue?.counts).toMatchObject({ waiting: 1, delayed: 1 })
    expect(queue?.jobs.map((job) => job.id)).toContain(id)
    expect(text).toContain('pin: text')
    expect(text).not.toContain('secret-of-ann')
    expect(await operator.page(`/dashboard/queues/api/queues/default/${id}`)).not.toContain('secret-of-ann')
    expect(await operator.page('/dashboard/queues/api/redis/stats')).toContain('version')
  })

  it('is a page with its own scripts and styles, and nothing of another host', async () => {
    const page = await operator.page('/dashboard/queues')
    expect(page).toContain('<base href="/dashboard/queues/"')
    expect(page).not.toMatch(/https?:\/\//)
    const [script] = /static\/js\/main\.[0-9a-f]+\.js/.exec(page) ?? []
    expect((await operator.get(`/dashboard/queues/${script}`)).status).toBe(200)
  })

  it.each([
    ['PUT', `/default/${id}/retry`],
    ['PUT', `/default/${id}/clean`],
    ['PUT', `/default/${id}/promote`],
    ['PATCH', `/default/${id}/update-data`],
    ['POST', '/default/add'],
    ['PUT', '/default/pause'],
    ['PUT', '/default/empty'],
    ['PUT', '/default/obliterate'],
    ['PUT', '/default/clean/delayed'],
    ['PUT', '/pause'],
  ])('changes nothing, not for operators either: %s %s', async (method, path) => {
    const answer = await dashboard.request(`/dashboard/queues/api/queues${path}`, {
      method,
      headers: { cookie: operator.cookie, 'content-type': 'application/json' },
      body: '{"jobData":{},"force":true}',
    })
    expect([403, 405]).toContain(answer.status)
    expect(await dashboard.backend.counts('default')).toMatchObject({ waiting: 1, delayed: 1 })
  })
})
