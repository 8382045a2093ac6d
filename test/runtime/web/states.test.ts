import { randomBytes, randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { sha256 } from '../../../src/core/digest.ts'
import { createStateAdministration } from '../../../src/domain/state/administration.ts'
import { createStateGate, partOf } from '../../../src/domain/state/gate.ts'
import { createMissCounter } from '../../../src/domain/state/migration/storm-guard.ts'
import { createPostgresStore } from '../../../src/domain/state/stores/postgres.ts'
import { createAuditLog } from '../../../src/platform/access/audit-log.ts'
import type { Postgres } from '../../../src/platform/postgres/postgres.ts'
import { createStateRoutes } from '../../../src/runtime/web/state-routes.ts'
import { testDatabase } from '../../support/databases.ts'
import { eventually } from '../../support/processes.ts'
import { connect, quick } from '../../support/state.ts'
import { type Harness, operator, producer, startHarness, viewer } from './web-harness.ts'

let harness: Harness
let database: Postgres
const enqueued: { id: string; workers: number }[] = []
const clock = createSystemClock()

beforeAll(async () => {
  const { url } = await testDatabase()
  database = connect(url)
  const log = (await import('pino')).pino({ level: 'silent' })
  const states = createStateAdministration({ database, clock, log, connect })
  harness = await startHarness({
    databaseUrl: url,
    plugins: [
      createStateRoutes({
        store: createPostgresStore({ database, place: 'postgres:' }),
        gate: createStateGate(database),
        misses: createMissCounter({ database, clock, onStorm: () => undefined }),
        states,
        enqueue: async (id, workers) => void enqueued.push({ id, workers }),
        audit: createAuditLog({ postgres: database }),
      }),
    ],
  })
})
afterAll(async () => {
  await harness.close()
  await database.close()
})

const uuid = '11111111-2222-4333-8444-555555555555'
const call = (
  method: string,
  path: string,
  init: { body?: Buffer | string; headers?: Record<string, string>; key?: string } = {},
): Promise<Response> =>
  harness.request(path, {
    method,
    key: init.key ?? producer,
    ...(init.body === undefined ? {} : { body: init.body as string }),
    headers: init.headers ?? {},
  })

describe('states over HTTP', () => {
  it('takes and gives any bytes, with their sha256 as ETag', async () => {
    const path = `/v1/devices/dev1/states/def/${uuid}/7`
    const bytes = Buffer.concat([Buffer.from([0, 255, 233]), randomBytes(3_400_000)])
    const put = await call('PUT', path, {
      body: bytes,
      headers: { 'content-type': 'application/octet-stream' },
    })
    expect([put.status, put.headers.get('etag')]).toEqual([204, `"${sha256(bytes)}"`])
    const got = await call('GET', path, { key: viewer })
    expect(got.headers.get('etag')).toBe(`"${sha256(bytes)}"`)
    expect(Buffer.from(await got.arrayBuffer()).equals(bytes)).toBe(true)
    const again = await call('GET', path, { headers: { 'if-none-match': `"${sha256(bytes)}"` } })
    expect(again.status).toBe(304)
    expect((await call('PUT', path, { body: 'x', key: viewer })).status).toBe(403)
  })

  it('lists a device’s states', async () => {
    await call('PUT', `/v1/devices/dev2/states/devicedata/-/0`, { body: 'abc' })
    await call('PUT', `/v1/devices/dev2/states/-/${uuid}/1`, { body: 'a' })
    const list = (await (await call('GET', '/v1/devices/dev2/states')).json()) as { states: object[] }
    expect(list.states).toMatchObject([
      { type: 'devicedata', key: '-', counter: 0, size: 3 },
      { type: 'def', key: uuid, counter: 1, size: 1 },
    ])
  })

  it('answers 404 STATE_NOT_FOUND for a missing state, and removes nothing when such a read asks to clean', async () => {
    const of = (counter: number): string => `/v1/devices/dev3/states/def/${uuid}/${counter}`
    for (const counter of [1, 2]) await call('PUT', of(counter), { body: 'a' })
    const missing = await call('GET', `${of(9)}?clean=1`)
    expect([missing.status, ((await missing.json()) as { code: string }).code]).toEqual([
      404,
      'STATE_NOT_FOUND',
    ])
    expect((await call('GET', of(1))).status).toBe(200)
    expect((await call('GET', `${of(2)}?clean=1`)).status).toBe(200)
    expect((await call('GET', of(1))).status).toBe(404)
    expect((await call('DELETE', of(2))).status).toBe(204)
    expect((await call('DELETE', of(2))).status).toBe(404)
  })

  it('honours If-Match when it writes and when it removes', async () => {
    const path = `/v1/devices/dev4/states/fd/${uuid}/0`
    expect((await call('PUT', path, { body: 'a', headers: { 'if-match': '*' } })).status).toBe(412)
    await call('PUT', path, { body: 'a' })
    const stale = await call('PUT', path, { body: 'b', headers: { 'if-match': `"${sha256('z')}"` } })
    expect([stale.status, ((await stale.json()) as { code: string }).code]).toEqual([412, 'STATE_CHANGED'])
    expect((await call('PUT', path, { body: 'b', headers: { 'if-match': `"${sha256('a')}"` } })).status).toBe(
      204,
    )
    expect((await call('DELETE', path, { headers: { 'if-match': `"${sha256('a')}"` } })).status).toBe(412)
    expect((await call('DELETE', path, { headers: { 'if-match': `"${sha256('b')}"` } })).status).toBe(204)
  })

  it('names every fault of a path', async () => {
    const bad = await call('GET', '/v1/devices/a%20b/states/xx/-/minus')
    const problem = (await bad.json()) as { code: string; errors: { path: string }[] }
    expect([bad.status, problem.code]).toEqual([400, 'INPUT_INVALID'])
    expect(problem.errors.map((each) => each.path)).toEqual(['/device', '/type', '/counter'])
  })

  it('answers 503 STATE_GATED with Retry-After while the gate is closed, but for the devices that are let in', async () => {
    const devices = Array.from({ length: 40 }, (_each, index) => `gated${index}`)
    await database.query(`UPDATE state_gate SET version = 'baton:x', admitted = 30`)
    try {
      for (const device of devices) {
        const answer = await call('GET', `/v1/devices/${device}/states`)
        const admitted = partOf(device) < 30
        expect(answer.status).toBe(admitted ? 200 : 503)
        expect(answer.headers.get('retry-after')).toBe(admitted ? null : '300')
      }
      expect(devices.filter((device) => partOf(device) < 30).length).toBeGreaterThan(3)
    } finally {
      await database.query(`UPDATE state_gate SET version = '2', admitted = 0`)
    }
  })
})

describe('migrations over HTTP', () => {
  it('are begun by operators alone, and name every fault of the body', async () => {
    const body = JSON.stringify({ from: '', workers: 0 })
    const headers = { 'content-type': 'application/json' }
    expect((await call('POST', '/v1/migrations', { body, headers })).status).toBe(403)
    const bad = await call('POST', '/v1/migrations', { body, headers, key: operator })
    const problem = (await bad.json()) as { errors: { path: string }[] }
    expect(bad.status).toBe(400)
    expect(problem.errors.map((each) => each.path)).toEqual(['/from', '/to', '/workers'])
    const foreign = await call('POST', '/v1/migrations', {
      body: JSON.stringify({ from: 'file:/nowhere/at/all', to: 'ftp://x' }),
      headers,
      key: operator,
    })
    expect([foreign.status, ((await foreign.json()) as { code: string }).code]).toEqual([
      400,
      'STATE_URL_INVALID',
    ])
  })

  it('are shown without passwords, and refuse what their phase does not allow', async () => {
    const id = randomUUID()
    await database.query(
      'INSERT INTO state_migrations (id, source_url, target_url, options) VALUES ($1, $2, $3, $4)',
      [id, 'file:/somewhere', 'zpush+postgres://me:secret@host/db', JSON.stringify(quick)],
    )
    const shown = await (await call('GET', `/v1/migrations/${id}`, { key: viewer })).text()
    expect(JSON.parse(shown)).toMatchObject({ id, phase: 'copying', to: 'zpush+postgres://me:***@host/db' })
    expect(shown).not.toContain('secret')
    const early = await call('POST', `/v1/migrations/${id}/roll-back`, { key: operator })
    expect([early.status, ((await early.json()) as { code: string }).code]).toEqual([
      409,
      'MIGRATION_PHASE_WRONG',
    ])
    expect((await call('POST', `/v1/migrations/${id}/pause`, { key: operator })).status).toBe(202)
    const resumed = await call('POST', `/v1/migrations/${id}/resume`, { key: operator })
    expect(await resumed.json()).toMatchObject({ paused: false })
    expect(enqueued).toEqual([{ id, workers: 1 }])
    expect((await call('GET', '/v1/migrations/not-an-id', { key: viewer })).status).toBe(404)
  })
})

describe('the storm guard', () => {
  it('counts devices that lack states, closes the gate within two seconds of the threshold, and shows the choice', async () => {
    const id = randomUUID()
    await database.query(
      `INSERT INTO state_migrations (id, source_url, target_url, options, phase, cut_over_at)
       VALUES ($1, 'file:/a', 'postgres://b', $2, 'watching', now())`,
      [id, JSON.stringify({ ...quick, stormMinimum: 5, stormShare: 0.1 })],
    )
    await database.query(
      `INSERT INTO state_migration_devices (migration, device, bucket, status)
       SELECT $1, 'moved' || n, 'x/y', 'moved' FROM generate_series(1, 100) n`,
      [id],
    )
    await database.query(`UPDATE state_gate SET owner = $1`, [id])
    const ask = (device: string, type = 'def'): Promise<Response> =>
      call('GET', `/v1/devices/${device}/states/${type}/${uuid}/1`)
    // Neither fail-saves, nor strangers, nor one device many times are a storm.
    for (let index = 0; index < 30; index++) await ask('moved1')
    for (let index = 1; index <= 30; index++) await ask(`moved${index}`, 'fs')
    for (let index = 1; index <= 30; index++) await ask(`stranger${index}`)
    for (let index = 1; index <= 9; index++) await ask(`moved${index}`)
    await eventually(async () => {
      const { rows } = await database.query<{ missed: number }>(
        'SELECT count(missed_at)::int AS missed FROM state_migration_devices WHERE migration = $1',
        [id],
      )
      expect(rows[0]?.missed).toBe(9)
    })
    expect((await ask('moved1')).status).toBe(404)
    await ask('moved10')
    const reachedAt = performance.now()
    await eventually(async () => expect((await ask('moved50')).status).toBe(503))
    expect(performance.now() - reachedAt).toBeLessThan(2_000)
    const view = (await (await call('GET', `/v1/migrations/${id}`, { key: viewer })).json()) as {
      stormGuard: { missed: number; storm: object; choice: string[] }
    }
    expect(view.stormGuard.missed).toBeGreaterThanOrEqual(10)
    expect(view.stormGuard.storm).toMatchObject({ moved: 100, threshold: 10, advice: 'roll-back' })
    expect(view.stormGuard.choice.join(' ')).toMatch(/of 100 moved devices/)
  })
})
