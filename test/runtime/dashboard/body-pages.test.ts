import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { pino } from 'pino'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { type Bodies, createBodies } from '../../../src/domain/bodies/bodies.ts'
import type { BodyStore } from '../../../src/domain/bodies/body-store.ts'
import { createBodyStore } from '../../../src/domain/bodies/create-body-store.ts'
import { createDirectoryStore } from '../../../src/domain/bodies/stores/directory.ts'
import type { Postgres } from '../../../src/platform/postgres/postgres.ts'
import { readLatestRuns } from '../../../src/platform/queues/latest-runs.ts'
import { createLedger } from '../../../src/platform/queues/ledger-postgres.ts'
import { createBodiesPage, upkeepJobs } from '../../../src/runtime/dashboard/pages/bodies.ts'
import { testDatabase, testRedis } from '../../support/databases.ts'
import { eventually } from '../../support/processes.ts'
import { type Browser, type DashboardHarness, environmentKeys, startDashboard } from './dashboard-harness.ts'

const evil = `"><img src=x onerror=alert(1)><script>alert(2)</script>'`
const clock = createSystemClock()
const log = pino({ level: 'silent' })

let dashboard: DashboardHarness
let bodies: Bodies
let operator: Browser
let viewer: Browser
let folder: string
let hanging: Server
const begun: string[] = []

/** Two folders, and a server that takes questions and never answers. */
function openBodies(postgres: Postgres): Bodies {
  const { port } = hanging.address() as AddressInfo
  const address = `webdav+http://user:the-password@127.0.0.1:${port}/bodies/#drain`
  const remote = createBodyStore(address, clock, { spoolFolder: folder })
  const local = ['a', 'b'].map(
    (name): BodyStore => createDirectoryStore({ root: path.join(folder, name), clock, name }),
  )
  return createBodies({ stores: [...local, remote], postgres, clock, log, spoolFolder: folder })
}

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'baton-dashboard-'))
  hanging = createServer(() => undefined)
  await new Promise<void>((resolve) => void hanging.listen(0, '127.0.0.1', resolve))
  const [{ url }, redis] = await Promise.all([testDatabase(), testRedis()])
  dashboard = await startDashboard({
    databaseUrl: url,
    engine: { kind: 'redis', ...redis },
    pagesOf: ({ postgres, audit }) => {
      const ledger = createLedger({ postgres, clock })
      bodies = openBodies(postgres)
      return [
        createBodiesPage({
          clock,
          upkeep: bodies.upkeep,
          audit,
          runs: () => readLatestRuns({ postgres, ledger, names: upkeepJobs }),
          begin: async (name) => begun.push(name) === 1,
        }),
      ]
    },
  })
  operator = await dashboard.logIn(environmentKeys.operator)
  viewer = await dashboard.logIn(environmentKeys.viewer)
})
afterAll(async () => {
  hanging.closeAllConnections()
  hanging.close()
  await bodies.close()
  await dashboard.close()
  await rm(folder, { recursive: true, force: true })
})
beforeEach(async () => {
  begun.length = 0
  await query('TRUNCATE bodies, body_repairs, body_scrub, jobs, schedules')
  await query('INSERT INTO body_scrub DEFAULT VALUES')
})

const query = (sql: string, values: unknown[] = []): Promise<unknown> => dashboard.postgres.query(sql, values)
const rowOf = (page: string, about: string): string =>
  page.split('<tr').find((each) => each.includes(about)) ?? ''
const put = async (content: string): Promise<string> => {
  const source = async function* () {
    yield Buffer.from(content)
  }
  return (await bodies.put(source())).id
}
/** The look is shared for some seconds, since it takes as long as its slowest store. */
const shows = (browser: Browser, expected: RegExp): Promise<string> =>
  eventually(
    async () => {
      const page = await browser.page('/dashboard/bodies')
      expect(page).toMatch(expected)
      return page
    },
    { timeoutMs: 30_000, everyMs: 300 },
  )

describe('the page of bodies', () => {
  it('comes soon while a store hangs, and says so, without credentials', async () => {
    const startedAt = clock.monotonicMs()
    const page = await viewer.page('/dashboard/bodies')
    expect(clock.monotonicMs() - startedAt).toBeLessThan(4_000)
    expect(rowOf(page, '"id">a<')).toMatch(/ok<\/span>.*Copies">0</s)
    const hung = rowOf(page, '127.0.0.1')
    expect(hung).toMatch(/silent<\/span> .*draining<\/span>.*has not answered within 1\.5 s/s)
    expect(page).not.toContain('the-password')
    expect(page).toContain('Every body has what it needs')
    expect(page).toContain('none among the latest jobs')
    expect(page).toContain('the first scrub plants one')
  })

  it('counts bodies, bytes, copies by store, and those that lack one', async () => {
    const id = await put('0123456789')
    await put('abcdefghij')
    await query(`UPDATE bodies SET stores = '{a}' WHERE id = $1`, [id])
    const page = await shows(viewer, /Bodies<\/span><span class="tile-figure">2</)
    expect(page).toMatch(/tile-unit">20 B</)
    expect(page).toMatch(/lacking<\/span><\/span><span class="tile-figure">1</)
    expect(rowOf(page, '"id">a<')).toContain('Copies">2<')
    expect(rowOf(page, '"id">b<')).toContain('Copies">1<')
    await query(`UPDATE bodies SET stores = '{a,gone}'`)
    expect(rowOf(await shows(viewer, /not configured/), '"id">gone<')).toContain(
      'BODY_STORES does not name it',
    )
  })

  it('tells what waits for a repair, why and for how long, here and on the overview', async () => {
    const [one, two] = [await put('one'), await put('two')]
    await query(
      `INSERT INTO body_repairs (body, reason, since, attempts, error) VALUES
         ($1, 'a put wrote one copy only', now() - interval '2 hours', 3, 'connect ECONNREFUSED 10.0.0.9'),
         ($2, 'a read met a bad copy', now() - interval '5 minutes', 1, 'no sound copy is left')`,
      [one, two],
    )
    const page = await shows(operator, /lost<\/span><\/span><span class="tile-figure">1</)
    expect(rowOf(page, 'a put wrote one copy only')).toMatch(
      /Bodies">1<.*Oldest">2 h<.*Most tries">3<.*10\.0\.0\.9/s,
    )
    const seen = await viewer.page('/dashboard/bodies')
    expect(seen).toContain('a put wrote one copy only')
    expect(seen).not.toContain('10.0.0.9')
    await eventually(async () =>
      expect(await viewer.page('/dashboard')).toMatch(
        /Bodies<\/a><\/dt><dd>.*lost<\/span> 1 without a sound copy; 2 wait for a repair, the oldest for 2 h/s,
      ),
    )
    await query(`DELETE FROM body_repairs`)
    await eventually(async () =>
      expect(await viewer.page('/dashboard')).toMatch(
        /Bodies<\/a><\/dt><dd>.*ok<\/span> none waits for a repair/s,
      ),
    )
  })

  it('shows where the scrub is, and whether it found its planted copy', async () => {
    await query(
      `UPDATE body_scrub SET cursor = $1, checked = 1234, bad = 5, ran_at = now() - interval '10 minutes', canary = 'x',
         canary_planted_at = now() - interval '2 days'`,
      ['8'.padEnd(64, '0')],
    )
    const page = await shows(viewer, /value="50" aria-label="bodies read in this pass"/)
    expect(page).toMatch(/1,234 bodies, the last <time[^>]*>10 min ago/)
    expect(page).toContain('5 bad copies')
    expect(page).toMatch(/overdue<\/span> it was not found within a day/)
  })

  it('shows the last runs of the upkeep, and in words what a sweep did not dare to do', async () => {
    const result = {
      condemned: 7,
      removed: 3,
      orphans: {},
      staged: 1,
      tripped: ['900 of 1000 are unreferenced'],
      failed: [],
    }
    const run = { token: crypto.randomUUID(), runner: 'r' }
    const swept = await dashboard.addJob({ name: 'bodies-sweep' })
    await dashboard.ledger.start(swept, run)
    await dashboard.ledger.finish(swept, run.token, { kind: 'completed', result })
    await query(
      `INSERT INTO schedules (name, job, payload, cron, time_zone, next_at) VALUES
         ('bodies-sweep', 'bodies-sweep', '{}', '23 4 * * *', 'UTC', now() + interval '3 hours')`,
    )
    const waiting = await dashboard.addJob({ name: 'bodies-scrub', dedupeKey: 'one' })
    const page = await shows(viewer, /condemned 7/)
    const sweep = rowOf(page, '"Job">bodies-sweep')
    expect(sweep).toMatch(new RegExp(`${swept}.*completed</span>.*condemned 7, removed 3, staged 1`, 's'))
    expect(sweep).toMatch(/not done<\/span> 900 of 1000 are unreferenced/)
    expect(sweep).toMatch(/Next"><time[^>]*>in (2 h 59 min|3 h)/)
    expect(rowOf(page, '"Job">bodies-scrub')).toMatch(new RegExp(`Now">.*${waiting}.*waiting</span>`, 's'))
  })

  it('finds the last run by the time of its schedule however many jobs came since', async () => {
    const long = Date.now() - 86_400_000
    const run = { token: crypto.randomUUID(), runner: 'r' }
    const id = `${long
      .toString(16)
      .padStart(12, '0')
      .replace(/^(.{8})/, '$1-')}-7000-8000-000000000000`
    await dashboard.addJob({ id, name: 'bodies-sweep' })
    await dashboard.ledger.start(id, run)
    await dashboard.ledger.finish(id, run.token, { kind: 'completed', result: { removed: 42 } })
    await query(
      `INSERT INTO schedules (name, job, payload, cron, time_zone, next_at, last_at) VALUES
         ('bodies-sweep', 'bodies-sweep', '{}', '23 4 * * *', 'UTC', now(), $1)`,
      [new Date(long)],
    )
    await query(
      `INSERT INTO jobs (id, name, queue, payload, priority, max_attempts, run_at)
       SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') || '70008' || lpad(to_hex(i), 15, '0'))::uuid,
         'mail', 'default', '{}', 0, 1, now() FROM generate_series(1, 10500) AS i`,
    )
    const found = await readLatestRuns({
      postgres: dashboard.postgres,
      ledger: dashboard.ledger,
      names: ['bodies-sweep'],
    })
    expect(found[0]?.finished?.result).toEqual({ removed: 42 })
  })

  it('lets an operator begin a scrub and a repair, once, and writes that down', async () => {
    const first = await operator.post('/dashboard/bodies/scrub')
    expect(await operator.page(first.headers.get('location') ?? '')).toContain('The job is added')
    const second = await operator.post('/dashboard/bodies/repair')
    expect(await operator.page(second.headers.get('location') ?? '')).toContain('waits or runs already')
    expect(begun).toEqual(['bodies-scrub', 'bodies-repair'])
    const entries = await dashboard.audit.list({ limit: 2 })
    expect(entries.map(({ action, subject }) => [action, subject])).toEqual([
      ['bodies.repair', 'bodies-repair'],
      ['bodies.scrub', 'bodies-scrub'],
    ])
    expect((await operator.post('/dashboard/bodies/sweep')).status).toBe(404)
  })

  it('shows a viewer no button, and refuses one who sends the form all the same', async () => {
    expect(await operator.page('/dashboard/bodies')).toContain('action="/dashboard/bodies/scrub"')
    expect(await viewer.page('/dashboard/bodies')).not.toContain('action="/dashboard/bodies/')
    expect((await viewer.post('/dashboard/bodies/scrub')).status).toBe(403)
    expect((await operator.post('/dashboard/bodies/scrub', { token: 'another' })).status).toBe(403)
    expect(begun).toEqual([])
  })

  it('shows what comes from stores and jobs as text', async () => {
    const id = await put('a body')
    await query(`UPDATE bodies SET stores = ARRAY['a', $1]`, [evil])
    await query(`INSERT INTO body_repairs (body, reason, error) VALUES ($1, $2, $2)`, [id, evil])
    const run = { token: crypto.randomUUID(), runner: evil }
    const job = await dashboard.addJob({ name: 'bodies-sweep' })
    await dashboard.ledger.start(job, run)
    await dashboard.ledger.finish(job, run.token, {
      kind: 'completed',
      result: { [evil]: 1, tripped: [evil, { a: 1 }], failed: evil },
    })
    for (const browser of [operator, viewer]) {
      const page = await shows(browser, /&lt;script&gt;/)
      expect(page).not.toContain('<img')
      expect(page).not.toMatch(/<script(?![^>]* src=")/)
    }
  })

  it('says that a store is not the place that it was', async () => {
    await put('something')
    const other = createBodies({
      stores: ['a', 'b'].map((name) => createDirectoryStore({ root: path.join(folder, name), clock, name })),
      postgres: dashboard.postgres,
      clock,
      log,
      spoolFolder: folder,
    })
    await writeFile(path.join(folder, 'b', 'identity'), 'another disk')
    const stores = await other.upkeep.askStores(1_000)
    expect(stores.map(({ name, state }) => [name, state])).toEqual([
      ['a', 'ok'],
      ['b', 'away'],
    ])
    expect(stores[1]?.reason).toContain('not the place that it was')
    await other.close()
  })
})
