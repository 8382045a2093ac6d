import path from 'node:path'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { MigrationView } from '../../src/domain/state/migration/view.ts'
import { bucketOf } from '../../src/domain/state/state-key.ts'
import { deviceName, plant } from '../support/phones.ts'
import { type BatonProcess, eventually, freePort, spawnBaton } from '../support/processes.ts'
import { createStateSite, type StateSite } from '../support/state-site.ts'

let site: StateSite
beforeAll(async () => {
  site = await createStateSite()
})
afterAll(() => site.release())

async function query(url: string, sql: string, values: unknown[] = []): Promise<pg.QueryResult> {
  const client = new pg.Client({ connectionString: url.replace(/^zpush\+/, '') })
  await client.connect()
  try {
    return await client.query(sql, values)
  } finally {
    await client.end()
  }
}

/** Portions of a fifth, each for a short while, so that the test sees several. */
const hurry = (id: string, everyMs: number): Promise<pg.QueryResult> =>
  query(
    site.databaseUrl,
    `UPDATE state_migrations SET options = (options::jsonb || $2::jsonb)::json WHERE id = $1`,
    [id, JSON.stringify({ admitParts: 20, admitEveryMs: everyMs })],
  )

describe('Z-Push’s tables with a third of their states deleted', () => {
  it('are closed within two seconds, with the numbers and the advice, and opened again by portions', async () => {
    const root = path.join(site.folder, 'zpush')
    plant({ root, devices: 200, statesPerDevice: 8 })
    const [from, to] = [`file:${root}`, await site.zpush()]
    const { id } = await site.json('migrate', '--from', from, '--to', to, '--yes', '--no-scan', '--cut-over')
    await hurry(id, 400)
    // A migration that is watched gives its engine to nobody: this is what a worker does.
    const watcher = site.state('migrate', '--resume', id, '--watch')
    const version = (): Promise<string | undefined> => site.withStore(to, (store) => store.version())
    await watcher.waitForLine(/Watching/)
    await query(to, 'DELETE FROM states WHERE id_state % 3 = 0')
    const deletedAt = performance.now()
    await eventually(async () => expect(await version()).toBe(`baton:${id}`), { timeoutMs: 5_000 })
    const closedAfterMs = performance.now() - deletedAt
    expect(closedAfterMs).toBeLessThan(2_000)
    const stormy = await eventually(async () => {
      const view = await site.json('status', id)
      expect(view.stormGuard.storm?.exact).toBe(true)
      return view
    })
    const { storm, choice = [] } = stormy.stormGuard
    console.log(`gate closed ${Math.round(closedAfterMs)} ms after the deletion\n${choice.join('\n')}`)
    expect(storm?.affected).toBeGreaterThan(100)
    expect(storm).toMatchObject({ moved: 200, threshold: 10, advice: 'keep' })
    expect(choice[0]).toMatch(/^\d+ of 200 moved devices \([\d.]+%\) lack a state; 10 were allowed/)

    const portions = new Set<number>()
    // Keep: what an operator says after having seen the numbers.
    const keeping = site.run('migrate', '--resume', id)
    await eventually(
      async () => {
        const view = await site.json('status', id)
        if (view.stormGuard.admittedParts !== undefined) portions.add(view.stormGuard.admittedParts)
        expect(view.note).toBe('all phones are let in again')
      },
      { timeoutMs: 30_000, everyMs: 50 },
    )
    expect([...portions].filter((parts) => parts > 0 && parts < 100).length).toBeGreaterThan(1)
    expect(await version()).toBe('2')
    await keeping
    await watcher.kill()
  })
})

describe('Baton’s own store, served over HTTP by real processes', () => {
  const key = 'operator-key-0123456789'
  let web: BatonProcess
  let worker: BatonProcess
  let address: string

  async function call<T>(
    method: string,
    where: string,
    body?: unknown,
  ): Promise<{ status: number; body: T }> {
    const response = await fetch(`${address}${where}`, {
      method,
      headers: { authorization: `Bearer ${key}`, ...(body ? { 'content-type': 'application/json' } : {}) },
      ...(body ? { body: JSON.stringify(body) } : {}),
    })
    const text = await response.text()
    return { status: response.status, body: (text.startsWith('{') ? JSON.parse(text) : text) as T }
  }
  const look = async (id: string): Promise<MigrationView> =>
    (await call<MigrationView>('GET', `/v1/migrations/${id}?quarantine=0`)).body
  const awaitPhase = (id: string, phase: string): Promise<void> =>
    eventually(async () => expect((await look(id)).phase).toBe(phase), { timeoutMs: 60_000, everyMs: 100 })

  beforeAll(async () => {
    const port = await freePort()
    address = `http://127.0.0.1:${port}`
    const environment = {
      DATABASE_URL: site.databaseUrl,
      BATON_API_KEYS: `operator:${key}`,
      BATON_SECRET: 'a secret of the test',
      HOST: '127.0.0.1',
      PORT: String(port),
      WORKER_PROCESSES: '2',
      LOG_LEVEL: 'info',
    }
    const release = spawnBaton(['release'], environment)
    const { code } = await release.exit
    if (code !== 0) throw new Error(release.lines.join('\n'))
    web = spawnBaton(['web'], environment)
    worker = spawnBaton(['worker'], environment)
    await web.waitForLine(/"web takes requests"/, 30_000)
  })
  afterAll(async () => {
    await Promise.all([web.kill(), worker.kill()])
  })

  it('is filled by workers, cut over, closed when devices miss states, and opened by portions of them', async () => {
    const root = path.join(site.folder, 'baton')
    const planted = plant({ root, devices: 200, statesPerDevice: 8 })
    const to = site.databaseUrl
    const dry = await call<{ id: string }>('POST', '/v1/migrations', {
      from: `file:${root}`,
      to,
      dryRun: true,
    })
    await awaitPhase(dry.body.id, 'scanned')
    expect((await look(dry.body.id)).scan).toMatchObject({ devices: 200, states: planted })

    const begun = await call<{ id: string }>('POST', '/v1/migrations', {
      from: `file:${root}`,
      to,
      workers: 2,
    })
    expect(begun.status).toBe(202)
    const { id } = begun.body
    await awaitPhase(id, 'ready')
    const device = deviceName(3)
    expect((await call('GET', `/v1/devices/${device}/states`)).status).toBe(503)
    expect((await call('POST', `/v1/migrations/${id}/cut-over`)).status).toBe(202)
    await awaitPhase(id, 'watching')
    expect((await look(id)).counts).toMatchObject({ moved: 200, states: planted })
    const listed = await call<{ states: object[] }>('GET', `/v1/devices/${device}/states`)
    expect(listed.body.states).toHaveLength(planted / 200)

    await hurry(id, 2_000)
    const { rows } = await query(
      to,
      `WITH gone AS (DELETE FROM states WHERE type = '' AND abs(hashtext(device || uuid)) % 3 = 0 RETURNING device, uuid, counter)
       SELECT DISTINCT ON (device) * FROM gone`,
    )
    const affected = rows as { device: string; uuid: string; counter: string }[]
    expect(affected.length).toBeGreaterThan(50)
    let asked = 0
    for (const each of affected) {
      const where = `/v1/devices/${each.device}/states/def/${each.uuid}/${each.counter}`
      const { status } = await call('GET', where)
      if (status === 503) break
      expect(status).toBe(404)
      asked++
      if (asked === 10) break
    }
    const thresholdAt = performance.now()
    await eventually(async () => expect((await call('GET', `/v1/devices/${device}/states`)).status).toBe(503))
    expect(performance.now() - thresholdAt).toBeLessThan(2_000)
    const stormy = await eventually(
      async () => {
        const view = await look(id)
        expect(view.stormGuard.storm?.exact).toBe(true)
        return view
      },
      { timeoutMs: 30_000 },
    )
    expect(stormy.stormGuard.storm?.affected).toBeGreaterThan(50)
    console.log((stormy.stormGuard.choice ?? []).join('\n'))

    await call('POST', `/v1/migrations/${id}/resume`)
    const admitted = await eventually(
      async () => {
        const answers = await Promise.all(
          Array.from({ length: 100 }, (_each, index) =>
            call('GET', `/v1/devices/${deviceName(index)}/states`),
          ),
        )
        const open = answers.filter((answer) => answer.status === 200).length
        expect(open).toBeGreaterThan(5)
        return open
      },
      { timeoutMs: 30_000, everyMs: 100 },
    )
    expect(admitted).toBeLessThan(60)
    await eventually(async () => expect((await look(id)).note).toBe('all phones are let in again'), {
      timeoutMs: 40_000,
    })
    expect((await call('GET', `/v1/devices/${device}/states`)).status).toBe(200)
    expect(bucketOf(device)).toBe('3/0')
  })
})
