import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { testDatabase, testRedis } from '../../support/databases.ts'
import { eventually } from '../../support/processes.ts'
import {
  type DashboardHarness,
  environmentKeys,
  formType,
  openLogIn,
  startDashboard,
  tryLogIn,
} from './dashboard-harness.ts'

let dashboard: DashboardHarness
let databaseUrl: string

beforeAll(async () => {
  databaseUrl = (await testDatabase()).url
  dashboard = await startDashboard({ databaseUrl, engine: { kind: 'redis', ...(await testRedis()) } })
})
afterAll(() => dashboard.close())

const getPaths = [
  '',
  '/',
  '/jobs',
  '/jobs/0190a1b2-0000-7000-8000-000000000000',
  '/failed',
  '/audit',
  '/keys',
  '/queues',
  '/queues/',
  '/queues/api/queues',
  '/queues/api/redis/stats',
  '/queues/queue/default',
  '/queues/static/images/logo.svg',
  '/queues/static/favicon.ico',
]
const postPaths = [
  '/failed/retry',
  '/failed/retry-all',
  '/keys',
  '/log-out',
  '/jobs/x/retry',
  '/jobs/x/cancel',
]

describe('without a log-in', () => {
  it.each(getPaths)('GET /dashboard%s leads to the log-in page and shows nothing', async (path) => {
    const answer = await dashboard.request(`/dashboard${path}`)
    expect(answer.status).toBe(303)
    expect(answer.headers.get('location')).toBe(
      `/dashboard/log-in?to=${encodeURIComponent(`/dashboard${path}`)}`,
    )
    expect(await answer.text()).toBe('')
  })

  it.each(postPaths)('POST /dashboard%s is refused', async (path) => {
    const answer = await dashboard.request(`/dashboard${path}`, {
      method: 'POST',
      headers: formType,
      body: 'a=b',
    })
    expect(answer.status).toBe(401)
  })

  it('the script is closed, and the stylesheet and icon of the log-in page are open', async () => {
    const page = await (await dashboard.request('/dashboard/log-in')).text()
    const [style] = /\/dashboard\/assets\/style\.[0-9a-f]+\.css/.exec(page) ?? []
    const answer = await dashboard.request(style ?? '')
    expect(answer.status).toBe(200)
    expect(answer.headers.get('cache-control')).toContain('immutable')
    expect(page).not.toContain('script')
    const browser = await dashboard.logIn(environmentKeys.viewer)
    const [script] = /\/dashboard\/assets\/script\.[0-9a-f]+\.js/.exec(await browser.page('/dashboard')) ?? []
    expect((await dashboard.request(script ?? '')).status).toBe(303)
    expect((await browser.get(script ?? '')).headers.get('content-type')).toContain('javascript')
  })

  it('what a script fetches gets a 401 and no redirect', async () => {
    const answer = await dashboard.request('/dashboard', { headers: { 'sec-fetch-dest': 'empty' } })
    expect(answer.status).toBe(401)
  })

  it('a forged cookie is no log-in', async () => {
    const { cookie } = await dashboard.logIn(environmentKeys.viewer)
    const forged = `${cookie.slice(0, -3)}abc`
    expect((await dashboard.request('/dashboard', { headers: { cookie: forged } })).status).toBe(303)
  })

  it('a Bearer key opens nothing here: pages are for browsers', async () => {
    const headers = { authorization: `Bearer ${environmentKeys.operator}` }
    expect((await dashboard.request('/dashboard/jobs', { headers })).status).toBe(303)
  })

  it('a link from another site asks once more from our own, since a Strict cookie does not come with it', async () => {
    const answer = await dashboard.request('/dashboard/jobs?name=%22%3E', {
      headers: { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate' },
    })
    expect(answer.status).toBe(200)
    const page = await answer.text()
    expect(page).toContain('http-equiv="refresh" content="0;url=/dashboard/jobs?name=%22%3E"')
  })
})

describe('every answer', () => {
  it('is a matter of browsers: the document of the API names no page', () => {
    expect(dashboard.documented()).toEqual([])
  })

  it.each([
    '/dashboard',
    '/dashboard/log-in',
    '/dashboard/nowhere',
    '/dashboard/queues',
    '/dashboard/queues/api/queues',
  ])('of %s has the headers that keep others out', async (path) => {
    const browser = await dashboard.logIn(environmentKeys.viewer)
    for (const answer of [await browser.get(path), await dashboard.request(path)]) {
      const policy = answer.headers.get('content-security-policy') ?? ''
      expect(policy).toContain("default-src 'none'")
      expect(policy).toContain("frame-ancestors 'none'")
      expect(policy).not.toMatch(/unsafe|\*|https?:/)
      expect(answer.headers.get('x-content-type-options')).toBe('nosniff')
      expect(answer.headers.get('cache-control')).toBe('no-store')
      expect(answer.headers.get('referrer-policy')).toBe('same-origin')
    }
  })

  it('is free of inline scripts, styles and handlers', async () => {
    await dashboard.addFailed()
    const browser = await dashboard.logIn(environmentKeys.operator)
    for (const path of ['', '/jobs', '/failed', '/audit', '/keys', '/queues', '/log-in']) {
      const page = await browser.page(`/dashboard${path}`)
      expect(page).not.toMatch(/<style|\sstyle=|\son[a-z]+=/)
      for (const [script] of page.matchAll(/<script\b[^>]*>/g))
        expect(script).toMatch(/src="|type="application\/json"/)
      expect(page).not.toMatch(/(?:src|href)="https?:/)
    }
  })
})

describe('log-in', () => {
  it('gives a cookie that no script sees and no other site sends, and leads to where one wanted to go', async () => {
    const { cookie, token } = await openLogIn(dashboard.request)
    const answer = await dashboard.request('/dashboard/log-in', {
      method: 'POST',
      headers: { ...formType, cookie },
      body: new URLSearchParams({ key: environmentKeys.viewer, token, to: '/dashboard/jobs?state=failed' }),
    })
    expect(answer.status).toBe(303)
    expect(answer.headers.get('location')).toBe('/dashboard/jobs?state=failed')
    const set = answer.headers.getSetCookie().find((each) => each.startsWith('baton_dashboard='))
    expect(set).toMatch(/; Path=\/dashboard; HttpOnly; SameSite=Strict$|HttpOnly.*SameSite=Strict/)
    expect(set).not.toContain('Secure')
    const { actor, action } = (await dashboard.audit.list({ limit: 1 }))[0] ?? {}
    expect(`${actor} ${action}`).toBe('BATON_API_KEYS viewer dashboard.log-in')
  })

  it('marks the cookie Secure behind a router that speaks TLS', async () => {
    const answer = await tryLogIn(dashboard.request, environmentKeys.viewer, { 'x-forwarded-proto': 'https' })
    expect(answer.headers.getSetCookie().join()).toContain('Secure')
  })

  it.each([
    'https://evil.example',
    '//evil.example',
    '/dashboard//evil',
    '/other',
    '/dashboard/\\evil',
    '/dashboardx',
  ])('never leads to %s', async (to) => {
    const { cookie, token } = await openLogIn(dashboard.request)
    const body = new URLSearchParams({ key: environmentKeys.viewer, token, to })
    const answer = await dashboard.request('/dashboard/log-in', {
      method: 'POST',
      headers: { ...formType, cookie },
      body,
    })
    expect(answer.headers.get('location')).toBe('/dashboard')
  })

  it('refuses producers and unknown keys with words, keeps their key to itself, and sets no session', async () => {
    for (const [key, status] of [
      [environmentKeys.producer, 403],
      ['baton_nothing', 401],
      [' ', 401],
    ] as const) {
      const answer = await tryLogIn(dashboard.request, key, { 'x-forwarded-for': '198.51.100.1' })
      expect(answer.status).toBe(status)
      expect(answer.headers.getSetCookie().join()).not.toContain('baton_dashboard=')
      const page = await answer.text()
      expect(page).toContain('role="alert"')
      expect(page).not.toContain(`"${key}"`)
    }
    expect(dashboard.lines.join()).not.toContain(environmentKeys.producer)
  })

  it('is refused without the token of its page, so that nobody is logged in by another site', async () => {
    const { cookie, token } = await openLogIn(dashboard.request)
    const other = await openLogIn(dashboard.request)
    const attempts: [Record<string, string>, string][] = [
      [{ cookie }, ''],
      [{ cookie }, other.token],
      [{}, token],
      [{ cookie, origin: 'https://evil.example' }, token],
      [{ cookie, origin: 'null' }, token],
      [{ cookie, 'sec-fetch-site': 'cross-site' }, token],
    ]
    for (const [headers, sent] of attempts) {
      const body = new URLSearchParams({ key: environmentKeys.viewer, token: sent })
      const answer = await dashboard.request('/dashboard/log-in', {
        method: 'POST',
        headers: { ...formType, ...headers },
        body,
      })
      expect(answer.status).toBe(403)
    }
  })

  it('slows down whoever guesses, and nobody else', async () => {
    const guess = (): Promise<Response> =>
      tryLogIn(dashboard.request, 'wrong-key', { 'x-forwarded-for': '203.0.113.77' })
    for (let count = 0; count < 5; count++) expect((await guess()).status).toBe(401)
    const held = await guess()
    expect(held.status).toBe(429)
    expect(Number(held.headers.get('retry-after'))).toBeGreaterThan(5)
    const right = await tryLogIn(dashboard.request, environmentKeys.viewer, {
      'x-forwarded-for': '203.0.113.77',
    })
    expect(right.status).toBe(429)
    const other = await tryLogIn(dashboard.request, environmentKeys.viewer, {
      'x-forwarded-for': '203.0.113.78',
    })
    expect(other.status).toBe(303)
  })

  it('ends with the log-out, in this browser', async () => {
    const browser = await dashboard.logIn(environmentKeys.viewer)
    const answer = await browser.post('/dashboard/log-out')
    expect(answer.status).toBe(303)
    expect(answer.headers.getSetCookie().join()).toMatch(
      /baton_dashboard=;.*(Max-Age=0|Expires=Thu, 01 Jan 1970)/,
    )
  })

  it('ends within seconds once its key is revoked', async () => {
    const { key, id } = await dashboard.keys.create({ name: 'leaver', role: 'operator', actor: 'test' })
    const browser = await dashboard.logIn(key)
    await dashboard.keys.revoke(id, 'test')
    await eventually(async () => expect((await browser.get('/dashboard')).status).toBe(303), {
      timeoutMs: 6_000,
      everyMs: 200,
    })
  })
})

describe('a form', () => {
  it('needs the token of its own session', async () => {
    const id = await dashboard.addFailed()
    const operator = await dashboard.logIn(environmentKeys.operator)
    const other = await dashboard.logIn(environmentKeys.operator)
    for (const token of ['', 'x', other.token]) {
      const answer = await operator.post(`/dashboard/jobs/${id}/retry`, { token })
      expect(answer.status).toBe(403)
      expect(await answer.text()).toContain('FORM_NOT_OURS')
    }
    const foreign = await operator.post(`/dashboard/jobs/${id}/retry`, {}, { origin: 'https://evil.example' })
    expect(foreign.status).toBe(403)
    const json = await operator.post(
      `/dashboard/jobs/${id}/retry`,
      {},
      { 'content-type': 'application/json' },
    )
    expect(json.status).toBeGreaterThanOrEqual(400)
    expect((await dashboard.ledger.get(id))?.state).toBe('failed')
  })

  it.each([
    '/failed/retry',
    '/failed/retry-all',
    '/failed/retry-all/0190a1b2-0000-7000-8000-000000000000/stop',
    '/keys',
    '/keys/0190a1b2-0000-7000-8000-000000000000/revoke',
    '/jobs/0190a1b2-0000-7000-8000-000000000000/retry',
    '/jobs/0190a1b2-0000-7000-8000-000000000000/cancel',
  ])('to %s is not a viewer’s', async (path) => {
    const before = (await dashboard.audit.list({ limit: 1 }))[0]?.id
    const viewer = await dashboard.logIn(environmentKeys.viewer)
    const answer = await viewer.post(`/dashboard${path}`, { name: 'x', role: 'operator' })
    expect(answer.status).toBe(403)
    expect(await answer.text()).toContain('ROLE_MISSING')
    const since = (await dashboard.audit.list({ limit: 5 })).filter(
      (entry) => BigInt(entry.id) > BigInt(before ?? 0) && entry.action !== 'dashboard.log-in',
    )
    expect(since).toEqual([])
  })
})

describe('without any key', () => {
  it('the dashboard is closed, and says how to make one', async () => {
    const none = await startDashboard({
      databaseUrl: (await testDatabase()).url,
      engine: { kind: 'redis', ...(await testRedis()) },
      apiKeys: [],
    })
    try {
      expect((await none.request('/dashboard')).status).toBe(303)
      const closed = await (await none.request('/dashboard/log-in')).text()
      expect(closed).toContain('baton keys create --role operator')
      expect(closed).not.toContain('<form')
      await none.keys.create({ name: 'first', role: 'operator', actor: 'test' })
      await eventually(async () =>
        expect(await (await none.request('/dashboard/log-in')).text()).toContain('<form'),
      )
    } finally {
      await none.close()
    }
  })
})
