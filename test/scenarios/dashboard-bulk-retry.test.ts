import { afterAll, beforeAll, expect, test } from 'vitest'
import { createSystemClock } from '../../src/core/clock.ts'
import { newId } from '../../src/core/ids.ts'
import { createPostgres, type Postgres } from '../../src/platform/postgres/postgres.ts'
import { createLedger } from '../../src/platform/queues/ledger-postgres.ts'
import { logIn } from '../runtime/dashboard/dashboard-harness.ts'
import { testDatabase } from '../support/databases.ts'
import { type BatonProcess, eventually, freePort, spawnBaton } from '../support/processes.ts'

const key = 'operator-key-of-the-scenario'
const clock = createSystemClock()
let databaseUrl: string
let postgres: Postgres

beforeAll(async () => {
  databaseUrl = (await testDatabase()).url
  postgres = createPostgres({ url: databaseUrl, max: 4, applicationName: 'test', onError: () => undefined })
})
afterAll(() => postgres.close())

interface WebProcess extends BatonProcess {
  request(path: string, init?: RequestInit): Promise<Response>
}

async function startWeb(): Promise<WebProcess> {
  const port = await freePort()
  const web = spawnBaton(['web'], {
    DATABASE_URL: databaseUrl,
    BATON_SECRET: 'the same on every node',
    BATON_API_KEYS: `operator:${key}`,
    HOST: '127.0.0.1',
    PORT: String(port),
    SHUTDOWN_MS: '3000',
  })
  await web.waitForLine(/web takes requests/, 30_000)
  const request = (path: string, init: RequestInit = {}): Promise<Response> =>
    fetch(`http://127.0.0.1:${port}${path}`, { redirect: 'manual', ...init })
  return { ...web, request }
}

async function addFailed(count: number): Promise<void> {
  const ledger = createLedger({ postgres, clock })
  const run = { token: crypto.randomUUID(), runner: 'gone' }
  const job = { name: 'report', queue: 'default', payload: {}, priority: 0, maxAttempts: 1, delayMs: 0 }
  const rows = Array.from({ length: count }, () => ({ id: newId(clock.now()), queued: true, ...job }))
  await ledger.insert(rows)
  await Promise.all(rows.map(({ id }) => ledger.start(id, run)))
  const error = { code: 'JOB_FAILED', message: 'no' }
  await Promise.all(rows.map(({ id }) => ledger.finish(id, run.token, { kind: 'failed', error })))
}

const progress = async (): Promise<{ retried: number; outcome: string | null; failed: number }> => {
  const { rows } = await postgres.query<{ retried: number; outcome: string | null; failed: number }>(
    `SELECT retried, outcome, (SELECT count(*)::int FROM jobs WHERE outcome = 'failed') AS failed FROM bulk_retries`,
  )
  return rows[0] ?? { retried: 0, outcome: null, failed: -1 }
}

test('a retry of all failed jobs goes on in another web process when the one that began it is killed', async () => {
  const [first, second] = await Promise.all([startWeb(), startWeb()])
  await addFailed(120)
  const browser = await logIn(first.request, key)
  const begun = await browser.post('/dashboard/failed/retry-all', { rate: '10' })
  expect(begun.headers.get('location')).toBe('/dashboard/failed?notice=begun')
  await eventually(async () => expect((await progress()).retried).toBeGreaterThan(0), { timeoutMs: 30_000 })
  await first.kill()
  // The session holds on the other node, since it lives in the cookie alone.
  const page = await second.request('/dashboard/failed', { headers: { cookie: browser.cookie } })
  expect(page.status).toBe(200)
  expect(await page.text()).toMatch(/running<\/span>/)
  await eventually(async () => expect(await progress()).toMatchObject({ outcome: 'done', failed: 0 }), {
    timeoutMs: 60_000,
    everyMs: 250,
  })
  second.signal('SIGTERM')
  expect(await second.exit).toEqual({ code: 0, signal: null })
})
