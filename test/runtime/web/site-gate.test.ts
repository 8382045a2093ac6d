import { afterAll, beforeAll, expect, test } from 'vitest'
import type { SiteState } from '../../../src/platform/replication/site.ts'
import { type Harness, operator, problem, producer, startHarness, viewer } from './web-harness.ts'

let harness: Harness
let dismissed = 0
const listeners = new Set<(state: SiteState) => void>()
const site: { state: SiteState; onChange(listener: (state: SiteState) => void): () => void } = {
  state: { role: 'leader', intake: 'open', epoch: 1, lineage: null, leader: null },
  onChange: (listener) => {
    listeners.add(listener)
    return () => void listeners.delete(listener)
  },
}

function turn(intake: SiteState['intake']): void {
  site.state = { ...site.state, intake }
  for (const listener of listeners) listener(site.state)
}

beforeAll(async () => {
  harness = await startHarness({
    site,
    dismiss: () => void dismissed++,
    plugins: [
      async (server) => {
        server.post('/v1/fail-over', { config: { roles: [] } }, () => ({ served: true }))
        server.get('/v1/listen', () => ({ served: true }))
      },
    ],
  })
})
afterAll(() => harness.close())

const job = { name: 'mail', payload: { to: 'anna' } }

test.each(['draining', 'closed'] as const)(
  'writes are refused while the site is %s, and reads go on',
  async (intake) => {
    const before = await harness.count()
    turn(intake)
    const refused = await harness.post(job)
    expect(refused.status).toBe(503)
    expect(refused.headers.get('retry-after')).toBe('5')
    expect(await problem(refused)).toMatchObject({ code: 'SITE_CLOSED', status: 503 })
    expect(await harness.count()).toBe(before)

    expect((await harness.request('/v1/jobs', { key: viewer })).status).toBe(200)
    expect((await harness.request('/livez')).status).toBe(200)
    expect((await harness.request('/metrics', { key: viewer })).status).toBe(200)
    turn('open')
    expect((await harness.post(job)).status).toBe(202)
  },
)

test('who may not do it anyway learns nothing of the site', async () => {
  turn('closed')
  expect((await harness.request('/v1/jobs', { method: 'POST', body: '{}' })).status).toBe(401)
  turn('open')
})

test('to listen is to write, and what looks after the site is served all the same', async () => {
  turn('closed')
  expect((await harness.request('/v1/listen', { key: producer })).status).toBe(503)
  expect((await harness.request('/v1/fail-over', { method: 'POST', key: operator })).status).toBe(200)
  turn('open')
  expect((await harness.request('/v1/listen', { key: producer })).status).toBe(200)
})

test('who listens is asked to come again when the site closes, once', () => {
  dismissed = 0
  turn('draining')
  turn('closed')
  expect(dismissed).toBe(1)
  turn('open')
  turn('draining')
  expect(dismissed).toBe(2)
  turn('open')
})

test('the process stays ready, save for who asks whether the site takes writes', async () => {
  const ready = async (path: string) => {
    const response = await harness.request(path)
    return { status: response.status, ...((await response.json()) as { checks: { site: string } }) }
  }
  turn('closed')
  expect(await ready('/readyz')).toMatchObject({ status: 200, ready: true, checks: { site: 'closed' } })
  expect(await ready('/readyz?intake=open')).toMatchObject({ status: 503, ready: false })
  turn('open')
  expect(await ready('/readyz?intake=open')).toMatchObject({ status: 200, ready: true })
})

test('an open stream of events is ended with a hint when to come again', async () => {
  const { jobs } = (await (await harness.request('/v1/jobs?limit=1', { key: viewer })).json()) as {
    jobs: { id: string }[]
  }
  const stream = await harness.request(`/v1/jobs/${jobs[0]?.id}/events`, { key: viewer })
  const text = stream.text()
  await new Promise((resolve) => setImmediate(resolve))
  turn('draining')
  expect(await text).toMatch(/retry: \d+/)
  turn('open')
  expect((await harness.request(`/v1/jobs/${jobs[0]?.id}/events`, { key: viewer })).status).toBe(200)
})
