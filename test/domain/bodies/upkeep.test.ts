import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import { keepReferenced } from '../../../jobs/bodies.ts'
import { createSystemClock } from '../../../src/core/clock.ts'
import { sha256 } from '../../../src/core/digest.ts'
import { newId } from '../../../src/core/ids.ts'
import { type Bodies, createBodies } from '../../../src/domain/bodies/bodies.ts'
import type { BodyStore } from '../../../src/domain/bodies/body-store.ts'
import { BODY_UNAVAILABLE } from '../../../src/domain/bodies/errors.ts'
import { orderFor } from '../../../src/domain/bodies/placement.ts'
import { createDirectoryStore } from '../../../src/domain/bodies/stores/directory.ts'
import type { Repaired, ScrubOptions, SweepOptions } from '../../../src/domain/bodies/upkeep.ts'
import { createPostgres, type Postgres } from '../../../src/platform/postgres/postgres.ts'
import { testDatabase } from '../../support/databases.ts'

const clock = createSystemClock()
const log = pino({ level: 'silent' })
let postgres: Postgres
let folder: string

beforeAll(async () => {
  const { url } = await testDatabase()
  postgres = createPostgres({ url, max: 5, applicationName: 'upkeep test', onError: () => undefined })
})
afterAll(() => postgres.close())
beforeEach(async () => {
  await postgres.query('TRUNCATE bodies, body_repairs, body_stores, body_scrub, jobs')
  await postgres.query('INSERT INTO body_scrub DEFAULT VALUES')
  folder = await mkdtemp(join(tmpdir(), 'baton-bodies-'))
  return () => rm(folder, { recursive: true, force: true })
})

const storeNamed = (name: string): BodyStore =>
  createDirectoryStore({ root: join(folder, name), clock, name })
function open(stores: BodyStore[] = [storeNamed('a'), storeNamed('b')]): Bodies {
  const bodies = createBodies({ stores, postgres, clock, log, spoolFolder: folder })
  onTestFinished(() => bodies.close())
  return bodies
}
const put = async (bodies: Bodies, content: string | Buffer = randomBytes(1_000)): Promise<string> => {
  const source = async function* () {
    yield Buffer.from(content)
  }
  return (await bodies.put(source(), { minCopies: 1 })).id
}
const fileOf = (store: string, id: string): string => join(folder, store, 'bodies', id.slice(0, 2), id)
const storesOf = async (id: string): Promise<string[] | undefined> =>
  (await postgres.query<{ stores: string[] }>('SELECT stores FROM bodies WHERE id = $1', [id])).rows[0]
    ?.stores
const hasFile = (store: string, id: string): Promise<boolean> =>
  readFile(fileOf(store, id)).then(
    () => true,
    () => false,
  )
const wishes = async (): Promise<number> =>
  (await postgres.query<{ n: number }>('SELECT count(*)::int AS n FROM body_repairs')).rows[0]?.n ?? -1
const age = (sql = '40 days'): Promise<unknown> =>
  postgres.query(
    `UPDATE bodies SET touched_at = touched_at - $1::interval, created_at = created_at - $1::interval,
     condemned_at = condemned_at - $1::interval`,
    [sql],
  )
const collect = async (items: AsyncIterable<Repaired>): Promise<Repaired[]> => {
  const all: Repaired[] = []
  for await (const item of items) all.push(item)
  return all
}

describe('repairs', () => {
  it('bring a body to its two copies once its store is back, and not before', async () => {
    let away = true
    const b = storeNamed('b')
    const refuse =
      <Args extends unknown[], T>(work: (...args: Args) => Promise<T>) =>
      async (...args: Args): Promise<T> => {
        if (away) throw BODY_UNAVAILABLE({ store: 'b', reason: 'away' })
        return work(...args)
      }
    const flaky = {
      ...b,
      put: refuse(b.put),
      open: refuse(b.open),
      stage: refuse(b.stage as NonNullable<typeof b.stage>),
    }
    const bodies = open([storeNamed('a'), flaky])
    const ids = await Promise.all([put(bodies), put(bodies), put(bodies)])
    expect(await wishes()).toBe(3)
    const first = await collect(bodies.upkeep.repairDue())
    expect(first.map(({ report }) => report.failed.length > 0)).toEqual([true, true, true])
    expect((await bodies.upkeep.status()).repairs.waiting).toBe(3)
    away = false
    // Not due yet: a store that is away is not asked for each body each time.
    expect(await collect(bodies.upkeep.repairDue())).toEqual([])
    await postgres.query('UPDATE body_repairs SET due_at = now()')
    expect(await collect(bodies.upkeep.repairDue())).toHaveLength(3)
    expect(await wishes()).toBe(0)
    for (const id of ids) expect(await hasFile('b', id)).toBe(true)
  })

  it('that are wished for again meanwhile are done again', async () => {
    const bodies = open()
    const id = await put(bodies)
    await postgres.query(`INSERT INTO body_repairs (body, reason) VALUES ($1, 'one')`, [id])
    const { take: _take, ...a } = storeNamed('a')
    let opened = 0
    const wishing = open([
      {
        ...a,
        open: async (...args) => {
          if (opened++ === 0) await postgres.query('UPDATE body_repairs SET wish = wish + 1')
          return a.open(...args)
        },
      },
      storeNamed('b'),
    ])
    await wishing.repair(id)
    expect(await wishes()).toBe(1)
    await wishing.repair(id)
    expect(await wishes()).toBe(0)
  })
})

describe('a scrub', () => {
  const now: ScrubOptions = { settledMs: 0, bytesPerSecond: 1e12, canaryMs: 1e12 }
  const silenceCanary = (): Promise<unknown> =>
    postgres.query(
      `UPDATE body_scrub SET canary = 'none', canary_planted_at = now(), canary_found_at = now()`,
    )

  it('finds a flipped bit and a missing file, and mends both; reports what is bad twice', async () => {
    await silenceCanary()
    const bodies = open()
    const [flipped, missing, lost, sound] = await Promise.all([
      put(bodies),
      put(bodies),
      put(bodies),
      put(bodies),
    ])
    const bytes = await readFile(fileOf('a', flipped))
    bytes[500] = (bytes[500] ?? 0) ^ 64
    await writeFile(fileOf('a', flipped), bytes)
    await rm(fileOf('b', missing))
    for (const store of ['a', 'b']) await writeFile(fileOf(store, lost), 'gone')
    const found = new Map(
      (await collect(bodies.upkeep.scrub({ ...now, limit: 4 }))).map(({ id, report }) => [id, report]),
    )
    expect(found.get(flipped)).toMatchObject({ bad: ['a'], written: ['a'], lost: false })
    expect(found.get(missing)).toMatchObject({ bad: [], missing: ['b'], written: ['b'] })
    expect(found.get(lost)).toMatchObject({ bad: ['a', 'b'], lost: true, written: [] })
    expect(found.get(sound)).toMatchObject({ sound: ['a', 'b'], bad: [], written: [] })
    expect(sha256(await readFile(fileOf('a', flipped)))).toBe(flipped)
    expect(sha256(await readFile(fileOf('b', missing)))).toBe(missing)
    await expect(bodies.get(lost)).rejects.toMatchObject({
      code: expect.stringMatching(/BODY_CORRUPT|BODY_NOT_FOUND/),
    })
    await bodies.idle()
    const { scrub, repairs } = await bodies.upkeep.status()
    expect(scrub).toMatchObject({ checked: 4, bad: 3, missing: 1, lost: 1 })
    expect(repairs.lost + repairs.waiting).toBeGreaterThan(0)
  })

  it('reads each new body once, then goes round all of them, portion by portion', async () => {
    await silenceCanary()
    const bodies = open()
    const ids = (await Promise.all(Array.from({ length: 10 }, () => put(bodies)))).sort()
    const portion = async (limit: number): Promise<string[]> =>
      (await collect(bodies.upkeep.scrub({ ...now, limit }))).map(({ id }) => id)
    expect((await portion(10)).sort()).toEqual(ids)
    expect(await portion(4)).toEqual(ids.slice(0, 4))
    expect(await portion(4)).toEqual(ids.slice(4, 8))
    const fresh = await put(bodies)
    expect((await portion(2))[0]).toBe(fresh)
    const rest = await portion(20)
    expect(rest.length).toBeGreaterThanOrEqual(1)
    expect((await bodies.upkeep.status()).scrub.passes).toBe(1)
  })

  it('lets a new body settle before its first read', async () => {
    await silenceCanary()
    const bodies = open()
    await put(bodies)
    await postgres.query(`UPDATE body_scrub SET cursor = 'g'`)
    expect(await collect(bodies.upkeep.scrub({ bytesPerSecond: 1e12 }))).toEqual([])
  })

  it('finds the bad copy that it has planted, and says so when it does not', async () => {
    const bodies = open()
    await collect(bodies.upkeep.scrub({ ...now, settledMs: 3_600_000, limit: 0 }))
    expect((await bodies.upkeep.status()).scrub.canary).toBe('planted')
    await postgres.query(`UPDATE body_scrub SET canary_planted_at = now() - interval '25 hours'`)
    expect((await bodies.upkeep.status()).scrub.canary).toBe('overdue')
    const [first] = await collect(bodies.upkeep.scrub({ ...now, limit: 1 }))
    expect(first?.report.bad).toHaveLength(1)
    expect((await bodies.upkeep.status()).scrub.canary).toBe('found')
    expect(await collect(bodies.upkeep.scrub({ ...now, limit: 1 }))).toHaveLength(1)
    expect((await bodies.upkeep.status()).bodies).toBe(1)
  })

  it('keeps to its rate, and ends when it is told to', async () => {
    await silenceCanary()
    const bodies = open()
    for (let n = 0; n < 5; n++) await put(bodies, randomBytes(10_000))
    const begunAt = clock.monotonicMs()
    await collect(bodies.upkeep.scrub({ ...now, bytesPerSecond: 200_000, limit: 3 }))
    expect(clock.monotonicMs() - begunAt).toBeGreaterThan(250)
    const aborting = new AbortController()
    const slow = collect(
      bodies.upkeep.scrub({ ...now, bytesPerSecond: 10, limit: 3, signal: aborting.signal }),
    )
    await clock.sleep(50)
    aborting.abort()
    expect((await slow).length).toBe(1)
  })
})

describe('more than two stores', () => {
  it('share the bodies, two copies each, where rendezvous hashing says', async () => {
    const stores = ['a', 'b', 'c', 'd'].map(storeNamed)
    const bodies = open(stores)
    const ids = await Promise.all(Array.from({ length: 40 }, () => put(bodies)))
    const shares = new Map<string, number>()
    for (const id of ids) {
      const wanted = orderFor(id, stores)
        .slice(0, 2)
        .map(({ name }) => name)
      expect(await storesOf(id)).toEqual(wanted.toSorted())
      for (const name of wanted) {
        expect(await hasFile(name, id)).toBe(true)
        shares.set(name, (shares.get(name) ?? 0) + 1)
      }
    }
    expect(Math.min(...stores.map(({ name }) => shares.get(name) ?? 0))).toBeGreaterThan(5)
    const big = randomBytes(3_000_000)
    const id = await put(bodies, big)
    expect(Buffer.concat(await (await bodies.get(id)).stream.toArray()).equals(big)).toBe(true)
  })

  it('stand in for one that is away, and give back what they hold for it', async () => {
    const stores = ['a', 'b', 'c'].map(storeNamed)
    const down = new Set(['b'])
    const bodies = open(
      stores.map((store) => ({
        ...store,
        put: (...args) => (down.has(store.name) ? Promise.reject(new Error('away')) : store.put(...args)),
      })),
    )
    const ids = await Promise.all(Array.from({ length: 12 }, () => put(bodies)))
    for (const id of ids) expect(await storesOf(id)).toEqual(['a', 'c'])
    down.clear()
    await age('2 hours')
    let wished = 0
    for await (const _id of bodies.upkeep.rebalance()) wished++
    expect(wished).toBeGreaterThan(0)
    await collect(bodies.upkeep.repairDue())
    for (const id of ids) {
      const wanted = orderFor(id, stores)
        .slice(0, 2)
        .map(({ name }) => name)
      expect(await storesOf(id)).toEqual(wanted.toSorted())
      for (const { name } of stores) expect(await hasFile(name, id)).toBe(wanted.includes(name))
    }
  })

  it('are filled and emptied when one is added and another drained, and every body can be read meanwhile', async () => {
    const ids = await Promise.all(Array.from({ length: 20 }, () => put(open())))
    const bodies = open([{ ...storeNamed('a'), draining: true }, storeNamed('b'), storeNamed('c')])
    await age('2 hours')
    for await (const _id of bodies.upkeep.rebalance());
    for await (const { report } of bodies.upkeep.repairDue()) {
      expect(report.failed).toEqual([])
      for (const id of ids)
        expect(sha256(Buffer.concat(await (await bodies.get(id)).stream.toArray()))).toBe(id)
    }
    for (const id of ids) expect(await storesOf(id)).toEqual(['b', 'c'])
    for (const id of ids) expect(await hasFile('a', id)).toBe(false)
    const { stores } = await bodies.upkeep.status()
    expect(stores.map(({ name, copies, draining }) => [name, copies, draining])).toEqual([
      ['a', 0, true],
      ['b', 20, false],
      ['c', 20, false],
    ])
  })

  it('do not lose a copy to a move while the same bytes are put', async () => {
    const id = await put(open(), 'moved and put')
    const bodies = open([{ ...storeNamed('a'), draining: true }, storeNamed('b'), storeNamed('c')])
    await collect(bodies.upkeep.repairDue())
    for await (const _id of bodies.upkeep.rebalance());
    await collect(bodies.upkeep.repairDue())
    // Put within the hour: the surplus copy stays.
    expect(await storesOf(id)).toEqual(['a', 'b', 'c'])
  })
})

describe('a place that was replaced', () => {
  it('is used again once a person says that it is right, and gets its copies back', async () => {
    const ids = await Promise.all(Array.from({ length: 5 }, () => put(open())))
    await rm(join(folder, 'b'), { recursive: true })
    const bodies = open()
    expect((await bodies.upkeep.status()).stores[1]?.state).toMatch(/is the disk mounted/)
    expect(await bodies.upkeep.adopt('b')).toEqual({ wished: 5 })
    const after = open()
    await collect(after.upkeep.repairDue())
    for (const id of ids) expect(await hasFile('b', id)).toBe(true)
    expect((await after.upkeep.status()).stores.map(({ state }) => state)).toEqual(['ok', 'ok'])
    await expect(after.upkeep.adopt('other')).rejects.toMatchObject({ code: 'BODY_STORE_INVALID' })
  })
})

describe('a sweep', () => {
  const day = 86_400_000
  const options: SweepOptions = {
    retentionMs: 30 * day,
    keepReferenced: (candidates) => keepReferenced(postgres, candidates),
  }
  const job = (payload: unknown, result: unknown = null): Promise<unknown> =>
    postgres.query(
      `INSERT INTO jobs (id, name, queue, payload, result) VALUES ($1, 'j', 'default', $2, $3)`,
      [newId(clock.now()), JSON.stringify(payload), JSON.stringify(result)],
    )

  it('finds an id to which other hex digits are stuck, as an escape before it does', async () => {
    const [escaped, first, second] = ['a', 'b', 'c'].map((each) => sha256(each)) as [string, string, string]
    await job({ text: `\b${escaped}` })
    await job(null, first + second)
    const candidates = new Set([escaped, first, second])
    await keepReferenced(postgres, candidates)
    expect([...candidates]).toEqual([])
  })

  it('removes what nothing refers to, in two steps a day apart, and nothing else', async () => {
    const bodies = open()
    const [old, payload, result] = await Promise.all([put(bodies), put(bodies), put(bodies)])
    await age()
    const young = await put(bodies)
    await job({ deep: [{ body: payload }] })
    await job({}, { thumbnails: [{ body: result }] })
    expect(await bodies.upkeep.sweep(options)).toMatchObject({ condemned: 1, removed: 0 })
    expect(await bodies.upkeep.sweep(options)).toMatchObject({ condemned: 0, removed: 0 })
    await age('25 hours')
    expect(await bodies.upkeep.sweep(options)).toMatchObject({ removed: 1, tripped: [], failed: [] })
    await expect(bodies.get(old)).rejects.toMatchObject({ code: 'BODY_NOT_FOUND' })
    expect([await hasFile('a', old), await hasFile('b', old)]).toEqual([false, false])
    for (const id of [payload, result, young]) expect((await bodies.stat(id)).copies).toBe(2)
  })

  it.each(['put', 'got', 'referred to'])('spares a body that is %s after it was condemned', async (how) => {
    const bodies = open()
    const id = await put(bodies, 'spared')
    await age()
    expect((await bodies.upkeep.sweep(options)).condemned).toBe(1)
    await age('25 hours')
    if (how === 'put') await put(bodies, 'spared')
    else if (how === 'got') await (await bodies.get(id)).stream.toArray()
    else await job({ id })
    expect(await bodies.upkeep.sweep(options)).toMatchObject({ removed: 0 })
    expect((await (await bodies.get(id)).stream.toArray()).toString()).toBe('spared')
  })

  it('that meets a put of the same bytes leaves two copies, whoever is first', async () => {
    const bodies = open()
    for (let round = 0; round < 10; round++) {
      const id = await put(bodies, 'raced')
      await age()
      await bodies.upkeep.sweep(options)
      await age('25 hours')
      await Promise.all([bodies.upkeep.sweep(options), put(bodies, 'raced'), put(bodies, 'raced')])
      expect(await storesOf(id)).toEqual(['a', 'b'])
      expect([await hasFile('a', id), await hasFile('b', id)]).toEqual([true, true])
      await postgres.query('UPDATE bodies SET condemned_at = NULL, touched_at = now()')
    }
  })

  it.each(['condemned', 'without a row'])(
    'that removes a body %s makes a put of the same bytes wait',
    async (how) => {
      const id = await put(open(), 'raced')
      await age()
      if (how === 'condemned') await open().upkeep.sweep(options)
      await age('25 hours')
      if (how !== 'condemned') {
        await postgres.query('DELETE FROM bodies')
        const old = clock.now() / 1_000 - 2 * 86_400
        for (const store of ['a', 'b']) await utimes(fileOf(store, id), old, old)
      }
      const a = storeNamed('a')
      const meanwhile: Promise<string>[] = []
      const slow: BodyStore = {
        ...a,
        remove: async (each) => {
          meanwhile.push(put(open(), 'raced'))
          await clock.sleep(200)
          return a.remove(each)
        },
      }
      await open([slow, storeNamed('b')]).upkeep.sweep(options)
      expect(meanwhile).toHaveLength(1)
      await Promise.all(meanwhile)
      expect(await storesOf(id)).toEqual(['a', 'b'])
      expect([await hasFile('a', id), await hasFile('b', id)]).toEqual([true, true])
    },
  )

  it('removes files without a row and what crashed writers left, once they are old', async () => {
    const bodies = open()
    const known = await put(bodies)
    const [orphan, fresh] = [sha256('orphan'), sha256('fresh')]
    const twoDaysAgo = clock.now() / 1_000 - 2 * 86_400
    for (const id of [orphan, fresh]) {
      await mkdir(join(folder, 'a/bodies', id.slice(0, 2)), { recursive: true })
      await writeFile(fileOf('a', id), 'x')
    }
    await writeFile(join(folder, 'a/incoming/half'), 'x')
    for (const path of [fileOf('a', orphan), fileOf('a', known), join(folder, 'a/incoming/half')]) {
      await utimes(path, twoDaysAgo, twoDaysAgo)
    }
    const report = await bodies.upkeep.sweep(options)
    expect(report).toMatchObject({ orphans: { a: 1, b: 0 }, staged: 1, tripped: [], failed: [] })
    expect([await hasFile('a', orphan), await hasFile('a', fresh), await hasFile('a', known)]).toEqual([
      false,
      true,
      true,
    ])
    expect(await readdir(join(folder, 'a/incoming'))).toEqual([])
    expect((await bodies.upkeep.status()).bodies).toBe(1)
  })

  it('removes the row of a put that died before its copies were recorded', async () => {
    const bodies = open()
    const id = await put(bodies)
    await postgres.query(`UPDATE bodies SET stores = '{}'`)
    await age('25 hours')
    expect((await bodies.upkeep.sweep(options)).condemned).toBe(1)
    await age('25 hours')
    expect((await bodies.upkeep.sweep(options)).removed).toBe(1)
    expect(await hasFile('a', id)).toBe(false)
  })

  it('stops before a plan that is suspiciously large, until a person forces it', async () => {
    const bodies = open()
    const ids = await Promise.all(Array.from({ length: 120 }, (_each, n) => put(bodies, `body ${n}`)))
    const old = clock.now() / 1_000 - 2 * 86_400
    for (const id of ids) await utimes(fileOf('a', id), old, old)
    await postgres.query('DELETE FROM bodies WHERE id = ANY ($1)', [ids.slice(0, 60)])
    const restored = await bodies.upkeep.sweep(options)
    expect(restored.tripped).toEqual([expect.stringContaining('was the database restored?')])
    expect(await hasFile('a', ids[0] ?? '')).toBe(true)
    await Promise.all(ids.map((_id, n) => put(bodies, `body ${n}`)))
    await age()
    await bodies.upkeep.sweep(options)
    await age('25 hours')
    expect(await bodies.upkeep.sweep(options)).toMatchObject({
      removed: 0,
      tripped: [expect.stringContaining('120 of 120 bodies are unreferenced')],
    })
    expect(await bodies.upkeep.sweep({ ...options, force: true })).toMatchObject({ removed: 120 })
  })

  it('leaves a body for the next time when a store cannot be asked', async () => {
    const b = storeNamed('b')
    const bodies = open()
    const id = await put(bodies)
    await age()
    await bodies.upkeep.sweep(options)
    await age('25 hours')
    const half = open([
      storeNamed('a'),
      { ...b, remove: () => Promise.reject(BODY_UNAVAILABLE({ store: 'b', reason: 'away' })) },
    ])
    expect((await half.upkeep.sweep(options)).failed).toEqual([expect.stringContaining('away')])
    expect(await storesOf(id)).toEqual(['a', 'b'])
    expect((await bodies.upkeep.sweep(options)).removed).toBe(1)
  })
})
