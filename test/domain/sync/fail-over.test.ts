import { expect, test } from 'vitest'
import { newId } from '../../../src/core/ids.ts'
import { createReplicatedDevice } from '../../../src/domain/push/replicated-device.ts'
import type { FailOverEngine } from '../../../src/domain/sync/fail-over/engine.ts'
import type { FailOver, Phase } from '../../../src/domain/sync/fail-over/rows.ts'
import { createSequencer } from '../../../src/domain/sync/sequencer.ts'
import type { Client, Postgres } from '../../../src/platform/postgres/postgres.ts'
import { createSite } from '../../../src/platform/replication/site.ts'
import { clock, type Half, openPair, type Pair } from './fail-over-pair.ts'

const soft = { mode: 'soft', to: 'b', actor: 'anna' } as const
const rehearse = { ...soft, mode: 'rehearse' } as const

const intakes = async ({ a, b }: Pair): Promise<string> =>
  `${(await a.site.read()).intake} ${(await b.site.read()).intake}`

/** Until nothing is under way, and at each step never with two sites open. */
async function runOut(pair: Pair, engine: FailOverEngine, steps = 60): Promise<FailOver> {
  for (let step = 0; step < steps && (await engine.step()); step++) {
    expect(['closed open', 'open closed', 'draining closed', 'closed closed']).toContain(await intakes(pair))
  }
  return last(pair.a)
}

async function last({ rows }: Half): Promise<FailOver> {
  const [found] = await rows.list(1)
  if (!found) throw new Error('there is no fail-over')
  return found
}

/** Steps until it is in the phase. */
async function stepTo({ a }: Pair, engine: FailOverEngine, phase: Phase): Promise<void> {
  for (let step = 0; step < 20 && (await last(a)).phase !== phase; step++) await engine.step()
  expect((await last(a)).phase).toBe(phase)
}

async function expectOver(pair: Pair, heads: number[]): Promise<void> {
  const { lineage } = await pair.a.site.read()
  expect(await pair.a.site.read()).toEqual({
    role: 'replica',
    intake: 'closed',
    epoch: 2,
    lineage,
    leader: 'b',
  })
  expect(await pair.b.site.read()).toEqual({
    role: 'leader',
    intake: 'open',
    epoch: 2,
    lineage,
    leader: null,
  })
  const { rows } = await pair.a.postgres.query<{ pos: string }>('SELECT pos FROM sync_cursors ORDER BY shard')
  expect(rows.map(({ pos }) => Number(pos))).toEqual(heads)
}

const headsOf = async ({ postgres }: Half): Promise<number[]> => {
  const { rows } = await postgres.query<{ pos: string }>('SELECT pos FROM change_heads ORDER BY shard')
  return rows.map(({ pos }) => Number(pos))
}

test('a soft fail-over closes here before it opens there, and this site follows', async () => {
  const pair = await openPair()
  await pair.copyOne()
  await pair.failOvers(pair.a).begin(soft)
  const over = await runOut(pair, pair.engine())
  expect(over).toMatchObject({ phase: 'done', error: null, epoch: 2, actor: 'anna' })
  expect(over.log.map(({ phase }) => phase)).toEqual([
    'preflight',
    'draining',
    'closed',
    'flushing',
    'promoting',
    'demoting',
    'done',
  ])
  await expectOver(pair, await headsOf(pair.a))
  expect(over.heads).toEqual(await headsOf(pair.b))
})

test('a rehearsal goes as far as the other site has all, and changes nothing', async () => {
  const pair = await openPair()
  await pair.copyOne()
  const before = await pair.b.site.read()
  await pair.failOvers(pair.a).begin(rehearse)
  const over = await runOut(pair, pair.engine())
  expect(over).toMatchObject({ phase: 'done', error: null })
  expect(over.log.map(({ phase }) => phase)).toContain('flushing')
  expect(await pair.a.site.read()).toMatchObject({ role: 'leader', intake: 'open', epoch: 1 })
  expect(await pair.b.site.read()).toEqual(before)
})

/** A Postgres whose process is killed at its n-th statement: before it was sent, or before its answer was read. */
function mortal(postgres: Postgres, statements: number, when: 'before' | 'after'): Postgres {
  let left = statements
  const live = async <T>(work: () => Promise<T>): Promise<T> => {
    if (left <= 0) throw new Error('killed')
    left -= 1
    if (left === 0 && when === 'before') throw new Error('killed')
    const answer = await work()
    if (left === 0) throw new Error('killed')
    return answer
  }
  const client = (inner: Client): Client =>
    new Proxy(inner, {
      get: (target, name) =>
        name === 'query'
          ? (...given: Parameters<Client['query']>) =>
              live(() => target.query(...given) as unknown as Promise<unknown>)
          : Reflect.get(target, name),
    })
  return {
    query: (sql, values) => live(() => postgres.query(sql, values)),
    // The commit is a statement too.
    transaction: (work) => live(() => postgres.transaction((inner) => work(client(inner)))),
    load: () => postgres.load(),
    pool: postgres.pool,
    url: postgres.url,
    close: () => postgres.close(),
  }
}

test.each(['before', 'after'] as const)(
  'whoever runs it may be killed %s any statement: the next one ends it, with one site open at most',
  async (when) => {
    const pair = await openPair()
    await pair.copyOne()
    const heads = await headsOf(pair.a)
    await pair.failOvers(pair.a).begin(soft)
    let lives = 0
    for (let statements = 1; (await last(pair.a)).finishedAt === null && lives < 400; lives++) {
      const engine = pair.engine({ postgres: mortal(pair.a.postgres, statements, when) })
      const { phase } = await last(pair.a)
      await engine.step()
      expect(['closed open', 'open closed', 'draining closed', 'closed closed']).toContain(
        await intakes(pair),
      )
      // One that got nowhere is followed by one that lives a statement longer.
      statements = (await last(pair.a)).phase === phase ? statements + 1 : 1
    }
    expect(await last(pair.a)).toMatchObject({ phase: 'done', error: null })
    expect(lives).toBeGreaterThan(20)
    await expectOver(pair, heads)
  },
)

test('of two that run it both may go on: it happens once', async () => {
  const pair = await openPair()
  await pair.copyOne()
  const heads = await headsOf(pair.a)
  await pair.failOvers(pair.a).begin(soft)
  await Promise.all([runOut(pair, pair.engine()), runOut(pair, pair.engine()), runOut(pair, pair.engine())])
  expect((await last(pair.a)).log).toHaveLength(7)
  await expectOver(pair, heads)
})

test.each(['preflight', 'draining', 'closed', 'flushing'] as const)(
  'an abort in %s takes writes again and leaves the other site alone',
  async (phase) => {
    const pair = await openPair()
    const before = await pair.b.site.read()
    await pair.failOvers(pair.a).begin(soft)
    await stepTo(pair, pair.engine(), phase)
    const aborted = await pair.failOvers(pair.a).abort({ actor: 'bert' })
    expect(aborted).toMatchObject({ phase: 'aborted', error: { code: 'FAIL_OVER_ABORTED' } })
    expect(await pair.a.site.read()).toMatchObject({ role: 'leader', intake: 'open', epoch: 1 })
    expect(await pair.b.site.read()).toEqual(before)
    await expect(pair.failOvers(pair.a).abort({ actor: 'bert' })).rejects.toMatchObject({
      code: 'FAIL_OVER_NONE',
    })
  },
)

test('an abort of which nobody is left to run the rest is ended by the next runner', async () => {
  const pair = await openPair()
  await pair.failOvers(pair.a).begin(soft)
  const engine = pair.engine()
  await stepTo(pair, engine, 'flushing')
  const { id } = await last(pair.a)
  const { abortedBy } = await import('../../../src/domain/sync/fail-over/engine.ts')
  await pair.a.rows.giveUp(id, abortedBy('bert'))
  await runOut(pair, pair.engine())
  expect(await last(pair.a)).toMatchObject({ phase: 'aborted' })
  expect((await pair.a.site.read()).intake).toBe('open')
})

test('once the other site was asked to open it is too late, and this one stays closed until it knows', async () => {
  const pair = await openPair()
  await pair.failOvers(pair.a).begin(soft)
  const engine = pair.engine({ limits: { promoting: 1 } })
  await stepTo(pair, engine, 'promoting')
  const { promote, hello } = pair.wire
  const away = async () => {
    throw new Error('away')
  }
  pair.wire.promote = away
  pair.wire.hello = away
  for (let step = 0; step < 5; step++) await engine.step()
  await expect(pair.failOvers(pair.a).abort({ actor: 'bert' })).rejects.toMatchObject({
    code: 'FAIL_OVER_COMMITTED',
  })
  expect(await intakes(pair)).toBe('closed closed')
  pair.wire.hello = hello
  // It answers again, but has not heard of it.
  for (let step = 0; step < 3; step++) await engine.step()
  expect(await last(pair.a)).toMatchObject({ phase: 'promoting' })
  expect(await intakes(pair)).toBe('closed closed')
  // It is done, and the answer is lost.
  pair.wire.promote = async (to) => {
    await promote(to)
    throw new Error('the answer is lost')
  }
  await engine.step()
  await runOut(pair, engine)
  await expectOver(pair, await headsOf(pair.a))
})

test('a runner that slept through the end of its fail-over changes nothing any more', async () => {
  const pair = await openPair()
  await pair.failOvers(pair.a).begin(soft)
  await stepTo(pair, pair.engine(), 'draining')
  const asItWas = await last(pair.a)
  await pair.failOvers(pair.a).abort({ actor: 'bert' })
  const sleeper = createSite({ postgres: pair.a.rows.guarding(asItWas, false), clock })
  await expect(sleeper.setIntake('draining')).rejects.toMatchObject({ code: 'FAIL_OVER_MOVED_ON' })
  await expect(sleeper.close(1_000)).rejects.toMatchObject({ code: 'FAIL_OVER_MOVED_ON' })
  expect((await pair.a.site.read()).intake).toBe('open')
})

test('what speaks against it is told, all of it, and nothing is changed', async () => {
  const pair = await openPair()
  const { postgres } = pair.a
  await postgres.query(`UPDATE replicas SET paused = true`)
  await postgres.query(
    `INSERT INTO replica_quarantine (replica, type, id, kind, reason) VALUES ('b', 'job', '1', 'mismatch', 'x')`,
  )
  await postgres.query(
    `INSERT INTO replica_fuses (id, replica, reason, deletes) VALUES (gen_random_uuid(), 'b', 'x', 60)`,
  )
  await postgres.query(
    `INSERT INTO change_pending (shard, type, id, at) VALUES (1, 'job', 'x', now() - interval '2 minutes')`,
  )
  pair.wire.hello = async () => {
    throw new Error('nobody there')
  }
  await pair.failOvers(pair.a).begin(soft)
  const refused = await runOut(pair, pair.engine({ isSeeded: async () => false }))
  expect(refused).toMatchObject({ phase: 'refused', error: { code: 'FAIL_OVER_REFUSED' } })
  expect(refused.report?.['problems']).toHaveLength(6)
  expect(refused.error?.message).toContain('nobody there')
  expect((await pair.a.site.read()).intake).toBe('open')
})

test('a worker that does not end its jobs in time ends the fail-over, and writes are taken again', async () => {
  const pair = await openPair()
  await pair.a.postgres.query(
    `INSERT INTO nodes (id, kind, host, pid, version, state, heartbeat_at)
     VALUES (gen_random_uuid(), 'worker', 'h1', 7, '1', 'stopping', now() + interval '1 hour')`,
  )
  await pair.failOvers(pair.a).begin(soft)
  const engine = pair.engine({ limits: { draining: 200 } })
  await stepTo(pair, engine, 'draining')
  await engine.step()
  expect((await pair.a.site.read()).intake).toBe('draining')
  await runOut(pair, engine, 2_000)
  const over = await last(pair.a)
  expect(over).toMatchObject({ phase: 'aborted', error: { code: 'FAIL_OVER_TIMEOUT' } })
  expect(over.error?.message).toContain('h1 (process 7, stopping)')
  expect((await pair.a.site.read()).intake).toBe('open')
})

test('a replica that has something else ends the fail-over, and writes are taken again', async () => {
  const pair = await openPair()
  await pair.copyOne()
  await pair.b.postgres.query(`UPDATE changes SET hash = repeat('b', 64)`)
  await pair.failOvers(pair.a).begin(soft)
  const over = await runOut(pair, pair.engine())
  expect(over).toMatchObject({ phase: 'aborted', error: { code: 'FAIL_OVER_DIFFERS' } })
  expect(await pair.a.site.read()).toMatchObject({ role: 'leader', intake: 'open' })
})

test('there is one at a time, and only the site that leads is asked for a soft one', async () => {
  const pair = await openPair()
  const begin = (half: Half, wish: Parameters<ReturnType<Pair['failOvers']>['begin']>[0]) =>
    pair.failOvers(half).begin(wish)
  await expect(begin(pair.b, soft)).rejects.toMatchObject({ code: 'FAIL_OVER_NOT_HERE' })
  await expect(begin(pair.a, { ...soft, to: 'c' })).rejects.toMatchObject({ code: 'REPLICA_NOT_FOUND' })
  await begin(pair.a, soft)
  await expect(begin(pair.a, rehearse)).rejects.toMatchObject({ code: 'FAIL_OVER_RUNNING' })
  const { rows } = await pair.a.postgres.query(`SELECT FROM audit_log WHERE action = 'fail-over.soft'`)
  expect(rows).toHaveLength(1)
})

test('a hard fail-over opens the replica at once, and tells up to where it had everything', async () => {
  const pair = await openPair()
  await pair.copyOne()
  const hard = { mode: 'hard', to: 'b', actor: 'anna' } as const
  const failOvers = pair.failOvers(pair.b)
  await expect(failOvers.begin(hard)).rejects.toMatchObject({ code: 'FAIL_OVER_UNCONFIRMED' })
  await expect(failOvers.begin({ ...hard, to: 'a', confirm: 'a' })).rejects.toMatchObject({
    code: 'FAIL_OVER_NOT_HERE',
  })
  const over = await failOvers.begin({ ...hard, confirm: 'a' })
  expect(over).toMatchObject({ phase: 'done', epoch: 2 })
  expect(await pair.b.site.read()).toMatchObject({ role: 'leader', intake: 'open', epoch: 2 })
  expect((await pair.wire.hello()).lostAfter).toEqual(over.heads)
  await expect(failOvers.begin({ ...hard, confirm: 'a' })).rejects.toMatchObject({
    code: 'FAIL_OVER_NOT_HERE',
  })
})

test('a hard fail-over that dies after it was noted is ended by the next runner', async () => {
  const pair = await openPair()
  const { b } = pair
  await b.rows.begin({
    id: crypto.randomUUID(),
    mode: 'hard',
    target: 'b',
    phase: 'promoting',
    actor: 'x',
    epoch: 2,
  })
  const again = { mode: 'hard', to: 'b', confirm: 'a', actor: 'x' } as const
  await expect(pair.failOvers(b).begin(again)).rejects.toMatchObject({ code: 'FAIL_OVER_RUNNING' })
  await pair.engine({}, b).step()
  expect(await last(b)).toMatchObject({ phase: 'done', heads: expect.any(Array) })
  expect(await b.site.read()).toMatchObject({ role: 'leader', intake: 'open', epoch: 2 })
})

test('a site whose target was asked to open and is gone for good takes over again, at an epoch of its own', async () => {
  const pair = await openPair()
  await pair.copyOne()
  const engine = pair.engine()
  await pair.failOvers(pair.a).begin(soft)
  await stepTo(pair, engine, 'promoting')
  const back = { mode: 'hard', to: 'a', actor: 'anna' } as const
  await expect(pair.failOvers(pair.a).begin(back)).rejects.toMatchObject({ code: 'FAIL_OVER_UNCONFIRMED' })
  const over = await pair.failOvers(pair.a).begin({ ...back, confirm: 'b' })
  expect(over).toMatchObject({ phase: 'done', epoch: 3 })
  expect(await pair.a.site.read()).toMatchObject({ role: 'leader', intake: 'open', epoch: 3 })
})

/** A device of the ledger of devices, written as any other. */
const addDevice = ({ postgres }: Half, id: string, user: string): Promise<unknown> =>
  postgres.query(
    `INSERT INTO devices (id, shard, user_id) VALUES ($1, 0, $2) ON CONFLICT (id) DO UPDATE SET user_id = excluded.user_id`,
    [id, user],
  )

const userOf = async ({ postgres }: Half, id: string): Promise<string | undefined> => {
  const { rows } = await postgres.query<{ user_id: string }>('SELECT user_id FROM devices WHERE id = $1', [
    id,
  ])
  return rows[0]?.user_id
}

test.each(['before', 'after'] as const)(
  'a leader of before closes and hands over what only it had, also when it is killed %s any statement',
  async (when) => {
    const pair = await openPair([createReplicatedDevice()])
    const { a, b } = pair
    await addDevice(a, 'only-here', 'ann')
    await addDevice(a, 'also-there', 'ann')
    await pair.failOvers(b).begin({ mode: 'hard', to: 'b', confirm: 'a', actor: 'anna' })
    await addDevice(b, 'also-there', 'bert')

    let lives = 0
    for (let statements = 1; lives < 300; lives++) {
      await pair.lookOut(mortal(a.postgres, statements, when)).step()
      const [found] = await a.rows.list(1)
      if (found?.finishedAt) break
      statements = (statements % 60) + 1
    }
    expect(await last(a)).toMatchObject({ phase: 'done', mode: 'hard', target: 'b', error: null })
    expect(await a.site.read()).toMatchObject({ role: 'replica', intake: 'closed', epoch: 2, leader: 'b' })
    expect(await b.site.read()).toMatchObject({ role: 'leader', intake: 'open', epoch: 2 })
    expect(await userOf(b, 'only-here')).toBe('ann')
    expect(await userOf(b, 'also-there')).toBe('bert')
    expect((await a.postgres.query('SELECT FROM sync_tail')).rows).toEqual([])
    const { rows } = await b.postgres.query<{ id: string }>(
      `SELECT id FROM sync_trash WHERE reason = 'conflict'`,
    )
    expect(rows).toEqual([{ id: 'also-there' }])
    // What it vouched for stands below all positions, until this site leads again.
    const vouched = async () => {
      const found = await a.postgres.query<{ pos: string }>(`SELECT pos FROM changes WHERE id = 'only-here'`)
      return Number(found.rows[0]?.pos)
    }
    expect(await vouched()).toBeLessThan(0)
    // Its own version makes room for that of the new leader, and is kept.
    expect(await userOf(a, 'also-there')).toBeUndefined()
    expect(
      (await a.postgres.query(`SELECT FROM sync_trash WHERE id = 'also-there' AND reason = 'replaced'`)).rows,
    ).toHaveLength(1)

    await pair.failOvers(a).begin({ mode: 'hard', to: 'a', confirm: 'b', actor: 'anna' })
    await createSequencer({ postgres: a.postgres, types: pair.types }).drain()
    expect(await vouched()).toBeGreaterThan(0)
  },
)

test('nothing is applied at a site that has not handed over yet what only it had', async () => {
  const pair = await openPair([createReplicatedDevice()])
  const { a, b } = pair
  await addDevice(a, 'only-here', 'ann')
  const { heads } = await pair.failOvers(b).begin({ mode: 'hard', to: 'b', confirm: 'a', actor: 'anna' })
  await a.site.demote({ epoch: 2, leader: 'b', cursors: heads ?? [] })
  const { lineage } = await b.site.read()
  const window = { protocol: 1, lineage, epoch: 2, shard: 0, window: { from: 0, to: 0 }, objects: [] }
  await expect(a.receiver.apply(window)).rejects.toMatchObject({ code: 'SYNC_TAIL_LEFT' })
})

test('a site that handed over to one that is gone too takes over again, with what only it had', async () => {
  const pair = await openPair([createReplicatedDevice()])
  const { a, b } = pair
  await addDevice(a, 'only-here', 'ann')
  await pair.failOvers(b).begin({ mode: 'hard', to: 'b', confirm: 'a', actor: 'anna' })
  await pair.lookOut().ask()
  b.receiver.candidates = async () => {
    throw new Error('away')
  }
  await pair.lookOut().step()
  expect(await last(a)).toMatchObject({ phase: 'demoting', mode: 'hard' })
  expect((await a.postgres.query('SELECT FROM sync_tail')).rows).toHaveLength(1)
  const back = await pair.failOvers(a).begin({ mode: 'hard', to: 'a', confirm: 'b', actor: 'anna' })
  expect(back).toMatchObject({ phase: 'done', epoch: 3 })
  expect(await a.site.read()).toMatchObject({ role: 'leader', intake: 'open', epoch: 3 })
  expect((await a.postgres.query('SELECT FROM sync_tail')).rows).toEqual([])
  const { rows } = await a.postgres.query<{ id: string }>('SELECT id FROM change_pending')
  expect(rows).toEqual([{ id: 'only-here' }])
})

test('a site that closed for one that is gone before it told what it had takes over again', async () => {
  const pair = await openPair()
  const { a, b } = pair
  await pair.failOvers(b).begin({ mode: 'hard', to: 'b', confirm: 'a', actor: 'anna' })
  const { hello } = pair.wire
  pair.wire.hello = async () => ({ ...(await hello()), lostAfter: null })
  await pair.lookOut().step()
  expect(await a.site.read()).toMatchObject({ role: 'leader', intake: 'closed', epoch: 1 })
  expect(await a.rows.list(1)).toEqual([])
  const back = { mode: 'hard', to: 'a', actor: 'anna' } as const
  await expect(pair.failOvers(a).begin(back)).rejects.toMatchObject({ code: 'FAIL_OVER_UNCONFIRMED' })
  expect(await pair.failOvers(a).begin({ ...back, confirm: 'b' })).toMatchObject({ phase: 'done', epoch: 3 })
  expect(await a.site.read()).toMatchObject({ role: 'leader', intake: 'open', epoch: 3 })
})

test('a target that was restored after it was asked to open, and opened by force, gets what it lacks', async () => {
  const pair = await openPair([createReplicatedDevice()])
  const { a, b } = pair
  await addDevice(a, 'only-here', 'ann')
  const sequencer = createSequencer({ postgres: a.postgres, types: pair.types })
  await sequencer.drain()
  // What b had of it when it was asked is gone with its restore.
  const asked = { mode: 'soft', target: 'b', actor: 'anna', phase: 'promoting', epoch: 2 } as const
  await a.rows.begin({ ...asked, id: newId(clock.now()), heads: await headsOf(a) })
  await a.site.close(1_000)
  await pair.failOvers(b).begin({ mode: 'hard', to: 'b', confirm: 'a', actor: 'anna' })
  const engine = pair.engine()
  for (let step = 0; step < 5; step++) await engine.step()
  expect(await a.rows.list(2)).toMatchObject([
    { mode: 'hard', phase: 'done', target: 'b' },
    { mode: 'soft', phase: 'aborted', error: { code: 'FAIL_OVER_SUPERSEDED' } },
  ])
  expect(await a.site.read()).toMatchObject({ role: 'replica', intake: 'closed', epoch: 2, leader: 'b' })
  expect(await userOf(b, 'only-here')).toBe('ann')
})

test('a site that led by force and comes back hands over what it numbered where the two parted', async () => {
  const pair = await openPair([createReplicatedDevice()])
  const { a, b } = pair
  await addDevice(a, 'phone', 'ann')
  await createSequencer({ postgres: a.postgres, types: pair.types }).drain()
  await pair.failOvers(b).begin({ mode: 'hard', to: 'b', confirm: 'a', actor: 'anna' })
  await addDevice(b, 'phone', 'bert')
  await createSequencer({ postgres: b.postgres, types: pair.types }).drain()
  const { hello } = pair.wire
  pair.wire.hello = async () => ({ ...(await hello()), lostAfter: null })
  await pair.lookOut().step()
  const back = { mode: 'hard', to: 'a', confirm: 'b', actor: 'anna' } as const
  const { heads } = await pair.failOvers(a).begin(back)
  expect(await b.site.demote({ epoch: 3, leader: 'a', cursors: heads ?? [] })).toMatchObject({ epoch: 3 })
  expect((await b.postgres.query('SELECT id FROM sync_tail')).rows).toEqual([{ id: 'phone' }])
  // What the other one never had gets a position that it is sent from.
  await createSequencer({ postgres: a.postgres, types: pair.types }).drain()
  const { rows } = await a.postgres.query<{ pos: string }>(`SELECT pos FROM changes WHERE id = 'phone'`)
  expect(rows).toEqual([{ pos: '1' }])
})

test.each(['draining', 'closed'] as const)(
  'a site that is left %s since another one has taken over, which is gone too, leads again',
  async (intake) => {
    const { a, ...pair } = await openPair()
    if (intake === 'closed') await a.site.close(1_000)
    else await a.site.setIntake('draining')
    await a.postgres.query('DELETE FROM replicas')
    const back = { mode: 'hard', to: 'a', actor: 'anna' } as const
    const failOvers = pair.failOvers(a)
    await expect(failOvers.begin(back)).rejects.toMatchObject({ code: 'FAIL_OVER_UNCONFIRMED' })
    expect(await failOvers.begin({ ...back, confirm: 'unknown' })).toMatchObject({ phase: 'done', epoch: 3 })
    expect(await a.site.read()).toMatchObject({ role: 'leader', intake: 'open', epoch: 3 })
  },
)

test('who is promoted owns its tail at once: killed at any statement, nothing is left behind', async () => {
  const pair = await openPair()
  const { a, b } = pair
  const { lineage } = await a.site.read()
  await b.postgres.query(
    `INSERT INTO changes (type, id, shard, pos, epoch, kind, hash) VALUES ('device', 'vouched', 0, -1, 1, 'upsert', 'x')`,
  )
  const to = { epoch: 2, lineage: lineage ?? '', heads: Array.from({ length: 16 }, () => 0) }
  for (let statements = 1; (await b.site.read()).role === 'replica'; statements++) {
    const dying = { ...b, postgres: mortal(b.postgres, statements, 'after') }
    await pair
      .failOvers(dying)
      .promote(to, { actor: 'a' })
      .catch(() => undefined)
  }
  expect((await b.postgres.query('SELECT id FROM change_pending')).rows).toEqual([{ id: 'vouched' }])
})
