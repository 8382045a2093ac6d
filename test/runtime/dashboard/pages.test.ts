import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { testDatabase, testRedis } from '../../support/databases.ts'
import { eventually } from '../../support/processes.ts'
import { type Browser, type DashboardHarness, environmentKeys, startDashboard } from './dashboard-harness.ts'

const evil = `"><img src=x onerror=alert(1)><script>alert(2)</script>'`

let dashboard: DashboardHarness
let operator: Browser
let viewer: Browser

beforeAll(async () => {
  const [{ url }, redis] = await Promise.all([testDatabase(), testRedis()])
  dashboard = await startDashboard({ databaseUrl: url, engine: { kind: 'redis', ...redis } })
  operator = await dashboard.logIn(environmentKeys.operator)
  viewer = await dashboard.logIn(environmentKeys.viewer)
})
afterAll(() => dashboard.close())

const expectHarmless = (page: string): void => {
  expect(page).not.toContain('<img')
  expect(page).not.toMatch(/<script(?![^>]* src=")/)
  expect(page).not.toMatch(/"><img|onerror=alert\(1\)>/)
}

describe('what comes from outside', () => {
  it('is text on every page: names, queues, payloads, errors, progress, results, actors, filters', async () => {
    const error = { code: evil, message: evil, stack: evil }
    const failed = await dashboard.addFailed({ name: evil, queue: evil, payload: { [evil]: evil }, error })
    const active = await dashboard.addJob({
      name: evil,
      queue: evil,
      payload: evil,
      dedupeKey: evil,
      context: { requestId: evil, traceparent: evil },
    })
    const run = { token: crypto.randomUUID(), runner: evil }
    await dashboard.ledger.start(active, run)
    await dashboard.ledger.saveProgress(active, run.token, { [evil]: evil })
    await dashboard.ledger.saveCheckpoint(active, run.token, { [evil]: evil })
    await dashboard.audit.record({ actor: evil, action: evil, subject: failed, details: { [evil]: evil } })
    await dashboard.keys.create({ name: evil, role: 'viewer', actor: evil })
    await dashboard.postgres.query(
      `INSERT INTO nodes (id, kind, host, pid, version, children, state) VALUES ($1, $1, $1, 1, $1, $2, $1)`,
      [evil, JSON.stringify([{ runner: evil, state: evil, active: 1, pid: evil, rssBytes: 1 }])],
    )
    await dashboard.postgres.query(
      `INSERT INTO schedules (name, job, payload, cron, time_zone, next_at) VALUES ($1, $1, '{}', $1, $1, now())`,
      [evil],
    )
    const query = `name=${encodeURIComponent(evil)}&queue=${encodeURIComponent(evil)}`
    const paths = [
      '',
      '/jobs',
      `/jobs?${query}`,
      `/jobs?id=${encodeURIComponent(evil)}`,
      '/failed',
      `/failed?${query}`,
    ]
    paths.push(
      `/jobs/${failed}`,
      `/jobs/${active}`,
      '/audit',
      '/keys',
      `/failed?notice=${encodeURIComponent(evil)}`,
    )
    for (const path of paths) {
      for (const browser of path === '/keys' ? [operator] : [operator, viewer])
        expectHarmless(await browser.page(`/dashboard${path}`))
    }
    // What was escaped was there.
    expect(await operator.page(`/dashboard/jobs/${failed}`)).toContain(
      '&lt;script&gt;alert(2)&lt;/script&gt;',
    )
    expect(await operator.page(`/dashboard/jobs/${active}`)).toContain('&lt;img')
    const missing = await operator.get(`/dashboard/jobs/${encodeURIComponent(evil)}`)
    expect(missing.status).toBe(404)
    expectHarmless(await missing.text())
  })
})

describe('the overview', () => {
  it('tells figures by queue, states with a word, and that a dead node is dead', async () => {
    await dashboard.addJob({ queue: 'heavy', name: 'report' })
    await dashboard.addJob({ queue: 'heavy', name: 'report', delayMs: 3_600_000, queued: false })
    await dashboard.postgres.query(
      `INSERT INTO queue_epochs (queue, epoch, checked_at) VALUES ('heavy', 'e', now() - interval '3 hours')`,
    )
    await dashboard.postgres.query(
      `INSERT INTO nodes (id, kind, host, pid, version, children, state, heartbeat_at) VALUES
        ('n1', 'worker', 'alive.host', 1, '1', '[{"runner":"r1","state":"ready","active":7,"pid":42,"rssBytes":1048576}]', 'up', now() + interval '1 minute'),
        ('n2', 'worker', 'silent.host', 2, '1', '[]', 'up', now() - interval '2 hours')`,
    )
    const page = await eventually(async () => {
      const shown = await viewer.page('/dashboard')
      expect(shown).toContain('silent.host')
      return shown
    })
    const row = (about: string): string => page.split('<tr').find((each) => each.includes(about)) ?? ''
    expect(row('data-label="Queue">heavy')).toMatch(/Waiting"><a[^>]*>1<.*Delayed"><a[^>]*>1</s)
    expect(row('alive.host')).toMatch(/up<\/span>.*ready<\/span> 7 active/s)
    expect(row('silent.host')).toMatch(/dead<\/span>.*>2 h ago/s)
    expect(page).toMatch(/Accepted<\/span>\s*<span class="tile-figure">\d+</)
    expect(page).toMatch(/Read at <time datetime="20\d\d-/)
    expect(page).toMatch(/Left for the reconciler<\/dt><dd>1 not handed .*>3 h ago</)
    expect(page).toContain('BullMQ on Redis')
    expect(page).not.toContain('not reachable')
  })
})

describe('the list of jobs', () => {
  it('filters by state, name and queue, and finds a job by its id', async () => {
    const id = await dashboard.addJob({ name: 'rare', queue: 'default', delayMs: 60_000 })
    const page = await viewer.page('/dashboard/jobs?state=delayed&name=rare&queue=default')
    expect(page).toContain(`/dashboard/jobs/${id}`)
    expect(page.match(/<tbody>.*<\/tbody>/s)?.[0].match(/<tr/g)).toHaveLength(1)
    expect(page).toContain('<option value="rare" selected>')
    expect(await viewer.page('/dashboard/jobs?state=active&name=rare')).toContain('No job matches')
    expect((await viewer.get(`/dashboard/jobs?id=${id}`)).headers.get('location')).toBe(
      `/dashboard/jobs/${id}`,
    )
    expect(await viewer.page('/dashboard/jobs?id=nonsense')).toContain('not the id of a job')
  })

  it('leads from page to page by cursor, each job on one of them', async () => {
    const ids: string[] = []
    for (let index = 0; index < 120; index++) ids.push(await dashboard.addJob({ name: 'many' }))
    const seen: string[] = []
    let path: string | undefined = '/dashboard/jobs?name=many&state=waiting'
    for (let pages = 0; path; pages++) {
      expect(pages).toBeLessThan(3)
      const page: string = await viewer.page(path)
      seen.push(
        ...[...page.matchAll(/class="id" href="\/dashboard\/jobs\/([0-9a-f-]+)"/g)].map(
          (each) => each[1] ?? '',
        ),
      )
      path = /<a href="([^"]+)">Next page/.exec(page)?.[1]?.replaceAll('&amp;', '&')
    }
    expect(seen.toSorted()).toEqual(ids.toSorted())
    expect((await viewer.get('/dashboard/jobs?cursor=nonsense')).status).toBe(400)
  })
})

describe('the page of a job', () => {
  it('shows operators the payload, and viewers its keys alone', async () => {
    const id = await dashboard.addFailed({ payload: { to: 'ann@example.org', pin: 1234 } })
    expect(await operator.page(`/dashboard/jobs/${id}`)).toContain('ann@example.org')
    const seen = await viewer.page(`/dashboard/jobs/${id}`)
    expect(seen).not.toMatch(/ann@example.org|1234/)
    expect(seen).toMatch(/to: text\s+pin: number/)
    expect(seen).not.toContain('Retry this job')
    expect(dashboard.lines.join()).not.toContain('ann@example.org')
  })

  it('tells attempts, interruptions, error with stack, checkpoint and who did what', async () => {
    const id = await dashboard.addJob()
    const run = { token: crypto.randomUUID(), runner: 'runner-9' }
    await dashboard.ledger.start(id, run)
    await dashboard.ledger.saveCheckpoint(id, run.token, { line: 70_123 })
    await dashboard.ledger.finish(id, run.token, { kind: 'interrupted' })
    await dashboard.ledger.start(id, run)
    const error = { code: 'MAIL_REFUSED', message: 'no such box', stack: 'at send (mail.ts:1)' }
    await dashboard.ledger.finish(id, run.token, { kind: 'failed', error })
    await operator.post(`/dashboard/jobs/${id}/retry`)
    const page = await operator.page(`/dashboard/jobs/${id}`)
    expect(page).toMatch(/Interruptions<\/dt><dd[^>]*>1 \(crashes: 0\)/)
    expect(page).toContain('70123')
    expect(page).toMatch(/Retried by hand<\/dt><dd[^>]*>1</)
    expect(page).toMatch(/BATON_API_KEYS operator<\/td>.*job\.retry/s)
    expect(await viewer.page(`/dashboard/jobs/${id}`)).not.toContain('70123')
  })

  it('retries what is finished and cancels what is not, with a word on what came of it, in the audit log', async () => {
    const failed = await dashboard.addFailed()
    const retried = await operator.post(`/dashboard/jobs/${failed}/retry`)
    expect(retried.headers.get('location')).toBe(`/dashboard/jobs/${failed}?notice=retried`)
    expect(await operator.page(retried.headers.get('location') ?? '')).toContain('is waiting again')
    expect((await dashboard.ledger.get(failed))?.state).toBe('waiting')
    const again = await operator.post(`/dashboard/jobs/${failed}/retry`)
    expect(again.headers.get('location')).toContain('notice=unfinished')
    const cancelled = await operator.post(`/dashboard/jobs/${failed}/cancel`)
    expect(cancelled.headers.get('location')).toContain('notice=cancelled')
    expect((await dashboard.ledger.get(failed))?.state).toBe('cancelled')
    const entries = await dashboard.audit.list({ limit: 10, subject: failed })
    expect(entries.map((entry) => `${entry.actor} ${entry.action}`)).toEqual([
      'BATON_API_KEYS operator job.cancel',
      'BATON_API_KEYS operator job.retry',
      'BATON_API_KEYS operator job.retry',
    ])
  })

  it('asks the holder of a job that runs to stop', async () => {
    const id = await dashboard.addJob()
    await dashboard.ledger.start(id, { token: crypto.randomUUID(), runner: 'r' })
    const answer = await operator.post(`/dashboard/jobs/${id}/cancel`)
    expect(answer.headers.get('location')).toContain('notice=requested')
    expect(dashboard.wakes).toContain(`job-cancel ${id}`)
    expect(await dashboard.ledger.cancelRequested([id])).toEqual([id])
    expect(await viewer.page(`/dashboard/jobs/${id}`)).toContain('Its cancel was asked for')
  })
})

describe('failed jobs', () => {
  it('are retried when selected, those alone', async () => {
    const [one, two, three] = [
      await dashboard.addFailed(),
      await dashboard.addFailed(),
      await dashboard.addFailed(),
    ]
    const answer = await operator.post('/dashboard/failed/retry', {
      id: [one, three, 'nonsense'],
      name: 'mail',
    })
    expect(answer.headers.get('location')).toBe('/dashboard/failed?name=mail&notice=retried&count=2')
    const states = await Promise.all(
      [one, two, three].map(async (id) => (await dashboard.ledger.get(id))?.state),
    )
    expect(states).toEqual(['waiting', 'failed', 'waiting'])
    expect((await operator.post('/dashboard/failed/retry')).headers.get('location')).toContain('notice=none')
  })

  it('are retried all that match, in the background, with progress and an end in the audit log', async () => {
    const wanted = await Promise.all(Array.from({ length: 12 }, () => dashboard.addFailed({ name: 'bulk' })))
    const other = await dashboard.addFailed({ name: 'bulk', queue: 'heavy' })
    const fields = { name: 'bulk', queue: 'default', rate: '1000' }
    const answer = await operator.post('/dashboard/failed/retry-all', fields)
    expect(answer.headers.get('location')).toBe('/dashboard/failed?name=bulk&queue=default&notice=begun')
    const done = /jobs named bulk of the queue default<\/th>.*done<\/span>.*12 of 12/s
    await expect.poll(() => viewer.page('/dashboard/failed'), { timeout: 30_000 }).toMatch(done)
    const states = await dashboard.ledger.getMany(wanted)
    expect(new Set(states.map((job) => job.state))).toEqual(new Set(['waiting']))
    expect((await dashboard.ledger.get(other))?.state).toBe('failed')
    const actions = (await dashboard.audit.list({ limit: 3 })).map((entry) => entry.action)
    expect(actions).toEqual(expect.arrayContaining(['jobs.retry-all', 'jobs.retry-all.done']))
  })
})

describe('the audit log', () => {
  it('shows the last entries first, page by page', async () => {
    for (let index = 0; index < 60; index++)
      await dashboard.audit.record({ actor: `actor-${index}`, action: 'test', subject: 'x' })
    const first = await viewer.page('/dashboard/audit')
    expect(first).toContain('actor-59')
    expect(first).not.toContain('actor-5<')
    const next = /<a href="(\/dashboard\/audit\?before=\d+)">Next/.exec(first)?.[1] ?? ''
    expect(await viewer.page(next)).toContain('actor-5<')
  })
})

describe('API keys', () => {
  it('are made and shown once, listed, and revoked', async () => {
    const made = await operator.post('/dashboard/keys', { name: 'shop', role: 'producer' })
    expect(made.status).toBe(201)
    const key = /baton_[0-9a-f]{48}/.exec(await made.text())?.[0] ?? ''
    expect((await dashboard.keys.list()).some((each) => key.startsWith(each.prefix))).toBe(true)
    const listed = await operator.page('/dashboard/keys')
    expect(listed).toContain(key.slice(0, 12))
    expect(listed).not.toContain(key)
    expect(dashboard.lines.join()).not.toContain(key)
    const { id } = (await dashboard.keys.list()).find((each) => each.name === 'shop') ?? { id: '' }
    const revoked = await operator.post(`/dashboard/keys/${id}/revoke`)
    expect(revoked.headers.get('location')).toBe('/dashboard/keys?notice=revoked')
    expect((await dashboard.keys.list()).find((each) => each.id === id)?.revokedAt).toBeDefined()
    const entries = await dashboard.audit.list({ limit: 2, subject: id })
    expect(entries.map((entry) => `${entry.actor} ${entry.action}`)).toEqual([
      'BATON_API_KEYS operator key.revoke',
      'BATON_API_KEYS operator key.create',
    ])
  })

  it('need a name and a role that there is', async () => {
    for (const fields of [
      { name: '', role: 'viewer' },
      { name: 'x', role: 'root' },
      { name: 'x'.repeat(101), role: 'viewer' },
    ])
      expect((await operator.post('/dashboard/keys', fields)).status).toBe(400)
  })

  it('are no page for viewers, in the navigation neither', async () => {
    expect((await viewer.get('/dashboard/keys')).status).toBe(403)
    expect(await viewer.page('/dashboard')).not.toContain('/dashboard/keys')
  })
})
