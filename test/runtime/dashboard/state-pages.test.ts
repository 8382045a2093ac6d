import { randomBytes } from 'node:crypto'
import { rm } from 'node:fs/promises'
import path from 'node:path'
import { pino } from 'pino'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { newId } from '../../../src/core/ids.ts'
import {
  createStateAdministration,
  type StateAdministration,
} from '../../../src/domain/state/administration.ts'
import { createStatesPage } from '../../../src/runtime/dashboard/pages/states.ts'
import { testDatabase, testRedis } from '../../support/databases.ts'
import { eventually } from '../../support/processes.ts'
import { connect, emptyDatabase } from '../../support/state.ts'
import { unpack } from '../../support/zpush.ts'
import { type Browser, type DashboardHarness, environmentKeys, startDashboard } from './dashboard-harness.ts'

const evil = `"><img src=x onerror=alert(1)><script>alert(2)</script>'`
const clock = createSystemClock()

let dashboard: DashboardHarness
let states: StateAdministration
let operator: Browser
let viewer: Browser
const enqueued: string[] = []

beforeAll(async () => {
  const [{ url }, redis] = await Promise.all([testDatabase(), testRedis()])
  dashboard = await startDashboard({
    databaseUrl: url,
    engine: { kind: 'redis', ...redis },
    pagesOf: ({ postgres, audit }) => {
      const log = pino({ level: 'silent' })
      states = createStateAdministration({ database: postgres, clock, log, connect })
      return [createStatesPage({ states, enqueue: async (id) => void enqueued.push(id), audit })]
    },
  })
  operator = await dashboard.logIn(environmentKeys.operator)
  viewer = await dashboard.logIn(environmentKeys.viewer)
})
afterAll(() => dashboard.close())
beforeEach(async () => {
  enqueued.length = 0
  await query('TRUNCATE state_migrations CASCADE')
  await query(`UPDATE state_gate SET version = '2', reason = NULL, owner = NULL, admitted = 0`)
})

const query = (sql: string, values: unknown[] = []): Promise<unknown> => dashboard.postgres.query(sql, values)
const rowOf = (page: string, about: string): string =>
  page.split('<tr').find((each) => each.includes(about)) ?? ''
const buttonsOn = (page: string): string[] =>
  [...page.matchAll(/action="\/dashboard\/states\/[^/]+\/([a-z-]+)"/g)].map((each) => each[1] ?? '')

const addMigration = async (change: Record<string, unknown> = {}): Promise<string> => {
  const id = newId(clock.now())
  await dashboard.postgres.query(
    `INSERT INTO state_migrations (id, source_url, target_url, options) VALUES ($1, $2, $3, $4)`,
    [
      id,
      `file:/states-${id}`,
      `postgres://baton:the-password@db.example.org/b`,
      '{"stormShare":0.05,"stormMinimum":5}',
    ],
  )
  for (const [column, value] of Object.entries(change))
    await query(`UPDATE state_migrations SET ${column} = $2 WHERE id = $1`, [id, value])
  return id
}
const addDevices = (id: string, count: number, status: string): Promise<unknown> =>
  query(
    `INSERT INTO state_migration_devices (migration, device, bucket, status, states, bytes, verified_at)
     SELECT $1, $3 || i, 'a/b', $3, 4, 1000, CASE WHEN $3 = 'moved' THEN now() END FROM generate_series(1, $2) AS i`,
    [id, count, status],
  )
const storm = {
  moved: 40,
  affected: 3,
  wrote: 2,
  threshold: 2,
  advice: 'roll-back',
  exact: true,
  at: '2026-01-01T00:00:00.000Z',
}

describe('the page of device state', () => {
  it('says in words that there is no migration, and that the gate is open', async () => {
    const page = await viewer.page('/dashboard/states')
    expect(page).toContain('There is no migration yet')
    expect(page).toMatch(/own store: .*open<\/span>/s)
    await eventually(async () =>
      expect(await viewer.page('/dashboard')).toMatch(
        /Device state<\/a><\/dt><dd>.*open<\/span> no migration is under way/s,
      ),
    )
  })

  it('shows progress as a bar and in words, the rate and what is left, here and on the overview', async () => {
    const id = await addMigration()
    await addDevices(id, 30, 'moved')
    await addDevices(id, 10, 'pending')
    await addMigration({ phase: 'rolled-back', finished_at: new Date() })
    for (const where of ['/dashboard/states', `/dashboard/states/${id}`]) {
      const page = await viewer.page(where)
      expect(page).toMatch(
        /<progress class="wide" max="40" value="30" aria-label="devices"><\/progress>\s*<strong>75 %<\/strong>: 30 of 40 devices/,
      )
      expect(page).toMatch(/30 devices and 120 states a second.*about \d+ (ms|s) left/s)
      expect(page).toMatch(/copying<\/span>/)
      expect(page).toContain('postgres://baton:***@db.example.org/b')
      expect(page).not.toContain('the-password')
    }
    expect(rowOf(await viewer.page('/dashboard/states'), 'rolled-back</span>')).toContain('Ended"><time')
    await eventually(async () =>
      expect(await viewer.page('/dashboard')).toMatch(/Device state<\/a><\/dt><dd>.*copying<\/span> 75 %/s),
    )
  })

  it('tells that the gate is closed, why, and who is let in', async () => {
    const id = await addMigration({ phase: 'watching', storm: JSON.stringify(storm), admitted: 20 })
    await query(`UPDATE state_gate SET version = $1, reason = 'storm', owner = $2, admitted = 20`, [
      `baton:${id}`,
      id,
    ])
    const page = await viewer.page('/dashboard/states')
    expect(page).toMatch(
      /closed<\/span> a storm: too many devices lack states.*20 % of them are let in.*states\//s,
    )
    await eventually(async () =>
      expect(await viewer.page('/dashboard')).toMatch(/closed<\/span> the gate of Baton.s store: a storm/),
    )
  })
})

describe('the page of a migration', () => {
  it('shows the numbers of a storm, the advice and the choice', async () => {
    const id = await addMigration({
      phase: 'watching',
      storm: JSON.stringify(storm),
      cut_over_at: new Date(),
    })
    await addDevices(id, 40, 'moved')
    const page = await viewer.page(`/dashboard/states/${id}`)
    expect(page).toMatch(/<progress max="40" value="3"/)
    expect(page).toContain('<strong>3 of 40</strong> moved devices lack a state')
    expect(page).toContain('Advice: <strong>roll back</strong>')
    expect(page).toContain('3 of 40 moved devices (7.5%) lack a state; 2 were allowed. 2 wrote since')
    expect(page).toMatch(/5 % of those moved are allowed/)
    expect(page).toMatch(/Gate<\/dt><dd>.*closed<\/span> the target, by the storm guard/s)
    expect(await operator.page(`/dashboard/states/${id}`)).toContain(
      'Keep the target, let the phones in by portions',
    )
    await eventually(async () =>
      expect(await viewer.page('/dashboard')).toMatch(
        /storm<\/span> <a[^>]*>[^<]*<\/a> waits for a decision/,
      ),
    )
  })

  it('offers an operator exactly what its phase allows, and a viewer nothing', async () => {
    const cases: [Record<string, unknown>, string[]][] = [
      [{ phase: 'copying' }, ['cancel', 'cut-over', 'pause']],
      [{ phase: 'ready', paused: true }, ['cancel', 'cut-over', 'resume']],
      [{ phase: 'ready', wanted: 'cut-over' }, ['cancel', 'pause']],
      [{ phase: 'cutting-over' }, ['pause']],
      [{ phase: 'watching' }, ['finish', 'pause', 'roll-back']],
      [{ phase: 'watching', storm: JSON.stringify(storm) }, ['finish', 'pause', 'resume', 'roll-back']],
      [{ phase: 'watching', storm: JSON.stringify(storm), admitted: 10 }, ['finish', 'pause', 'roll-back']],
      [{ phase: 'done' }, ['roll-back']],
      [{ phase: 'rolled-back' }, []],
      [{ phase: 'cancelled' }, []],
    ]
    for (const [change, expected] of cases) {
      const id = await addMigration(change)
      const page = await operator.page(`/dashboard/states/${id}`)
      expect(buttonsOn(page).toSorted()).toEqual(expected)
      expect(buttonsOn(await viewer.page(`/dashboard/states/${id}`))).toEqual([])
      // What is offered is taken, and nothing else.
      for (const action of ['cut-over', 'roll-back', 'cancel', 'finish']) {
        if (change['wanted'] === action) continue
        const copy = await addMigration(change)
        const answer = await operator.post(`/dashboard/states/${copy}/${action}`)
        expect([action, answer.status]).toEqual([action, expected.includes(action) ? 303 : 409])
      }
    }
  })

  it('writes an action down, asks for it, and has a worker do it', async () => {
    const id = await addMigration({ phase: 'ready' })
    expect(await operator.page(`/dashboard/states/${id}`)).toMatch(/Closes file:\/states-.*phones get 503/)
    const answer = await operator.post(`/dashboard/states/${id}/cut-over`)
    const page = await operator.page(answer.headers.get('location') ?? '')
    expect(page).toContain('It is asked for')
    expect(page).toContain('asked for: cut-over')
    expect(page).toContain('migration.cut-over')
    expect(enqueued).toEqual([id])
    const [entry] = await dashboard.audit.list({ limit: 1, subject: id })
    expect(entry).toMatchObject({
      action: 'migration.cut-over',
      actor: 'BATON_API_KEYS operator',
      details: { from: 'dashboard' },
    })
    expect(await operator.page('/dashboard/audit')).toContain(`/dashboard/states/${id}`)
    await operator.post(`/dashboard/states/${id}/pause`)
    expect(enqueued).toEqual([id])
    expect((await states.get(id)).paused).toBe(true)
  })

  it('refuses a viewer, a form without its token, and an id that is none', async () => {
    const id = await addMigration({ phase: 'ready' })
    expect((await viewer.post(`/dashboard/states/${id}/cut-over`)).status).toBe(403)
    expect((await operator.post(`/dashboard/states/${id}/cut-over`, { token: 'another' })).status).toBe(403)
    expect((await operator.post(`/dashboard/states/${id}/reset`)).status).toBe(404)
    expect((await states.get(id)).wanted).toBeUndefined()
    expect(await dashboard.audit.list({ limit: 5, subject: id })).toEqual([])
    for (const unknown of [newId(clock.now()), 'nonsense', encodeURIComponent(evil)]) {
      expect((await viewer.get(`/dashboard/states/${unknown}`)).status).toBe(404)
      expect((await operator.post(`/dashboard/states/${unknown}/cancel`)).status).toBe(404)
    }
  })

  it('shows what comes from stores as text', async () => {
    const id = await addMigration({
      error: JSON.stringify({ code: evil, message: evil }),
      note: evil,
      paused: true,
      source_url: `file:/${evil}`,
    })
    await query(
      `INSERT INTO state_migration_quarantine (migration, device, name, reason, held, size) VALUES ($1, $2, $3, $2, true, 5)`,
      [id, evil, Buffer.from(evil)],
    )
    await query(
      `INSERT INTO state_migration_devices (migration, device, bucket, status, error) VALUES ($1, $2, 'a', 'failed', $2)`,
      [id, evil],
    )
    for (const where of ['/dashboard/states', `/dashboard/states/${id}`, '/dashboard']) {
      for (const browser of [operator, viewer]) {
        const page = await browser.page(where)
        expect(page).not.toContain('<img')
        expect(page).not.toMatch(/<script(?![^>]* src=")/)
      }
    }
    const page = await viewer.page(`/dashboard/states/${id}`)
    expect(rowOf(page, 'not moved</span>')).toContain('&lt;script&gt;')
    expect(rowOf(page, 'data-label="The last try"')).toContain('&lt;script&gt;')
  })
})

describe('a real migration', () => {
  it('is followed from its copy to its roll-back, with its quarantine by name', async () => {
    const [sample, target] = await Promise.all([unpack('states-dirty'), emptyDatabase()])
    const stop = new AbortController()
    try {
      const quick = { drainQuietMs: 100, deltaEveryMs: 100 }
      const { id } = await states.start(`file:${path.join(sample, 'dirty')}`, `zpush+${target.url}`, quick)
      const work = (until: string) =>
        states.work(id, {
          engine: `test ${randomBytes(4).toString('hex')}`,
          signal: stop.signal,
          until: ({ phase }) => phase === until,
        })
      await work('ready')
      const copied = await operator.page(`/dashboard/states/${id}`)
      expect(copied).toMatch(/ready<\/span>/)
      expect(copied).toMatch(/<strong>100 %<\/strong>.*nothing is pending/s)
      const held = (await states.view(id, 1_000)).quarantine.lines?.find(
        ({ severity }) => severity === 'held',
      )
      expect(rowOf(copied, 'not moved</span>')).toContain(`<code>${held?.code}</code>`)
      await operator.post(`/dashboard/states/${id}/cut-over`)
      await work('watching')
      const over = await operator.page(`/dashboard/states/${id}`)
      expect(over).toMatch(/watching<\/span>/)
      expect(over).toMatch(
        /Gate<\/dt><dd>.*open<\/span> the target is in use; it was closed for .* at the cut-over/s,
      )
      await operator.post(`/dashboard/states/${id}/roll-back`)
      await work('rolled-back')
      expect(await operator.page(`/dashboard/states/${id}`)).toMatch(
        /rolled-back<\/span>.*Brought back<\/dt><dd>\d+ devices/s,
      )
      const history = (await dashboard.audit.list({ limit: 5, subject: id })).map(({ action }) => action)
      expect(history).toEqual(['migration.roll-back', 'migration.cut-over'])
    } finally {
      stop.abort()
      await rm(sample, { recursive: true })
      await target.drop()
    }
  }, 60_000)
})
