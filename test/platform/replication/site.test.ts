import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { codeOf } from '../../../src/core/errors.ts'
import { createPostgres, type Postgres } from '../../../src/platform/postgres/postgres.ts'
import { createSite, type Site } from '../../../src/platform/replication/site.ts'
import { testDatabase } from '../../support/databases.ts'
import { eventually } from '../../support/processes.ts'

let postgres: Postgres
let site: Site

beforeEach(async () => {
  const { url } = await testDatabase()
  postgres = createPostgres({ url, max: 60, applicationName: 'test', onError: () => undefined })
  site = createSite({ postgres })
})
afterEach(() => postgres.close())

const run = (sql: string, values?: unknown[]) => postgres.query(sql, values)
const count = async (sql: string): Promise<number> =>
  Number((await postgres.query<{ n: string }>(`SELECT count(*) AS n FROM ${sql}`)).rows[0]?.n)
const addJob = (name = 'a') =>
  `INSERT INTO jobs (id, name, queue, payload) VALUES (gen_random_uuid(), '${name}', 'q', '{}')`
const codeFrom = (work: Promise<unknown>): Promise<string | undefined> => work.then(() => 'done', codeOf)
const zeros = Array.from({ length: 16 }, () => 0)
const lineage = '00000000-0000-4000-8000-000000000001'
/** All that may not change when something is refused. */
const everything = async (): Promise<unknown> => {
  const tables = [
    'site',
    'change_heads',
    'sync_cursors',
    'changes',
    'change_pending',
    'sync_tail',
    'sync_seeds',
    'sync_sentinels',
    'jobs',
  ]
  const read = tables.map((table) => run(`SELECT * FROM ${table} ORDER BY 1`).then(({ rows }) => rows))
  const triggers = run(`SELECT count(*) FROM pg_trigger WHERE starts_with(tgname, 'change_')`)
  return Promise.all([...read, triggers.then(({ rows }) => rows)])
}
const refused = async (work: () => Promise<unknown>): Promise<string | undefined> => {
  const before = await everything()
  const code = await codeFrom(work())
  expect(await everything()).toEqual(before)
  return code
}
/** A change at each of these positions of a shard, as if numbered. */
const putChanges = async (shard: number, positions: number[]): Promise<void> => {
  await run(
    `INSERT INTO changes (type, id, shard, pos, epoch, kind, hash)
     SELECT 'job', 'x' || pos, $1, pos, 1, 'upsert', 'h' FROM unnest($2::bigint[]) AS pos`,
    [shard, positions],
  )
  await run('UPDATE change_heads SET pos = $2 WHERE shard = $1', [shard, Math.max(...positions)])
}

describe('to lead', () => {
  it('begins a lineage with its sentinels and switches capture on, once', async () => {
    const first = await site.lead()
    expect(first).toMatchObject({ role: 'leader', intake: 'open', epoch: 1, leader: null })
    expect(await count(`sync_sentinels WHERE lineage = '${first.lineage}'`)).toBe(16)
    await run(addJob())
    expect(await count('change_pending')).toBe(1)
    expect(await Promise.all([site.lead(), site.lead()])).toEqual([first, first])
    expect(await site.read()).toEqual(first)
  })

  it('waits for those who write, so that what they wrote is there for the seeding', async () => {
    const { promise, resolve } = Promise.withResolvers<void>()
    const writer = postgres.transaction(async (client) => {
      await client.query(addJob())
      await promise
    })
    await eventually(async () =>
      expect(
        await count(`pg_locks WHERE relation = 'jobs'::regclass AND mode = 'RowExclusiveLock'`),
      ).toBeGreaterThan(0),
    )
    const leading = site.lead()
    await eventually(async () =>
      expect(await count(`pg_locks WHERE NOT granted AND relation = 'jobs'::regclass`)).toBe(1),
    )
    resolve()
    await writer
    await leading
    expect(await count('jobs')).toBe(1)
  })

  it('is not for a replica', async () => {
    await site.follow({ lineage, epoch: 3, leader: 'north' })
    expect(await refused(() => site.lead())).toBe('SITE_IS_REPLICA')
    await expect(site.lead()).rejects.toThrow('This site is a replica of north (epoch 3)')
  })
})

describe('to leave', () => {
  it('makes a leader alone with nothing left of replication, and a later lead begins another lineage', async () => {
    const { lineage: first } = await site.lead()
    await run(addJob())
    await putChanges(3, [1, 2])
    await run(`INSERT INTO sync_seeds (type, done) VALUES ('job', true)`)
    const alone = { role: 'alone', intake: 'open', epoch: 1, lineage: null, leader: null }
    expect(await site.leave()).toEqual(alone)
    expect(await site.leave()).toEqual(alone)
    for (const table of ['changes', 'change_pending', 'sync_sentinels', 'sync_seeds']) {
      expect([table, await count(table)]).toEqual([table, 0])
    }
    expect(await count('change_heads WHERE pos = 0')).toBe(16)
    expect(await count(`pg_trigger WHERE starts_with(tgname, 'change_')`)).toBe(0)
    await run(addJob())
    expect(await count('jobs')).toBe(2)
    expect(await count('change_pending')).toBe(0)
    const again = await site.lead()
    expect(again).toMatchObject({ role: 'leader', intake: 'open' })
    expect(again.lineage).not.toBe(first)
    await run(addJob())
    expect(await count('change_pending')).toBe(1)
  })

  it('is refused with a replica, during a fail-over, when closed, and to a replica; nothing changes', async () => {
    await site.lead()
    await run(`INSERT INTO replicas (name, url, key_sealed, policy) VALUES ('b', 'http://b', 'k', '{}')`)
    expect(await refused(() => site.leave())).toBe('SITE_IN_USE')
    await expect(site.leave()).rejects.toThrow('b is its replica')
    await run('DELETE FROM replicas')
    await run(
      `INSERT INTO fail_overs (id, mode, target, phase, actor) VALUES (gen_random_uuid(), 'soft', 'b', 'preflight', 'x')`,
    )
    expect(await refused(() => site.leave())).toBe('SITE_IN_USE')
    await run('DELETE FROM fail_overs')
    await site.close(1_000)
    expect(await refused(() => site.leave())).toBe('SITE_IN_USE')
    const { epoch, lineage: own } = await site.read()
    await site.demote({ epoch: epoch + 1, leader: 'b', cursors: zeros })
    expect(await refused(() => site.leave())).toBe('SITE_IS_REPLICA')
    expect((await site.read()).lineage).toBe(own)
  })

  it('lets those who write by, and captures nothing of what they write afterwards', async () => {
    await site.lead()
    let writing = true
    const write = async (): Promise<void> => {
      while (writing) {
        await postgres.transaction(async (client) => {
          await client.query(addJob())
          await client.query(
            `INSERT INTO bodies (id, size, chunks) VALUES (encode(sha256(convert_to(gen_random_uuid()::text, 'UTF8')), 'hex'), 1, '')`,
          )
        })
      }
    }
    const writers = Promise.all([write(), write(), write()])
    expect(await site.leave()).toMatchObject({ role: 'alone' })
    await run(addJob())
    writing = false
    await writers
    expect(await count('change_pending')).toBe(0)
  })
})

describe('to follow', () => {
  it('makes an empty site a closed replica with cursors at 0; again changes nothing', async () => {
    const state = { role: 'replica', intake: 'closed', epoch: 4, lineage, leader: 'north' }
    expect(await site.follow({ lineage, epoch: 4, leader: 'north' })).toEqual(state)
    const before = await everything()
    expect(await site.follow({ lineage, epoch: 4, leader: 'north' })).toEqual(state)
    expect(await everything()).toEqual(before)
    expect(await count('sync_cursors WHERE pos = 0')).toBe(16)
    expect(await count('sync_sentinels')).toBe(16)
    expect(await codeFrom(run(addJob()))).toBe('SITE_CLOSED')
  })

  it('takes over a higher epoch and its leader, never a lower one or another lineage', async () => {
    await site.follow({ lineage, epoch: 4, leader: 'north' })
    expect(await site.follow({ lineage, epoch: 6, leader: 'south' })).toMatchObject({
      epoch: 6,
      leader: 'south',
    })
    expect(await refused(() => site.follow({ lineage, epoch: 5, leader: 'north' }))).toBe('EPOCH_STALE')
    const foreign = '00000000-0000-4000-8000-000000000002'
    expect(await refused(() => site.follow({ lineage: foreign, epoch: 9, leader: 'north' }))).toBe(
      'LINEAGE_FOREIGN',
    )
  })

  it.each([
    ['devices', `INSERT INTO devices (id, shard) VALUES ('d', 0)`],
    ['state_devices', `INSERT INTO state_devices (device) VALUES ('d')`],
    [
      'pushes',
      `INSERT INTO pushes (id, device, shard, state, priority, expires_at, due_at) VALUES (gen_random_uuid(), 'd', 0, 'pending', true, now(), now())`,
    ],
    ['bodies', `INSERT INTO bodies (id, size, chunks) VALUES (repeat('a', 64), 1, '')`],
    ['datasets', `INSERT INTO datasets (name, import) VALUES ('d', gen_random_uuid())`],
    ['jobs', addJob()],
  ])('refuses a site that has %s, and changes nothing', async (table, insert) => {
    await run(insert)
    expect(await refused(() => site.follow({ lineage, epoch: 1, leader: 'north' }))).toBe('SITE_NOT_EMPTY')
    await expect(site.follow({ lineage, epoch: 1, leader: 'north' })).rejects.toThrow(
      `has ${table} of its own`,
    )
  })

  it('removes the jobs that its schedules made, since any site has them', async () => {
    await run(
      `INSERT INTO schedules (name, job, payload, cron, time_zone, next_at) VALUES ('s', 'nightly', '{}', '* * * * *', 'UTC', now())`,
    )
    await run(addJob('nightly'))
    await site.follow({ lineage, epoch: 1, leader: 'north' })
    expect(await count('jobs')).toBe(0)
    expect(await count('change_pending')).toBe(0)
  })

  it('is not for a site that leads', async () => {
    const { lineage: own } = await site.lead()
    const to = { lineage: own ?? '', leader: 'north' }
    expect(await refused(() => site.follow({ ...to, epoch: 1 }))).toBe('EPOCH_STALE')
    expect(await refused(() => site.follow({ ...to, epoch: 2 }))).toBe('SITE_LEADS')
    expect(await refused(() => site.follow({ lineage, leader: 'north', epoch: 2 }))).toBe('LINEAGE_FOREIGN')
  })
})

describe('intake', () => {
  it('drains and opens, of a leader and of a site that is alone', async () => {
    await site.setIntake('draining')
    expect(await site.read()).toMatchObject({ intake: 'draining' })
    await site.lead()
    await run(addJob())
    await site.setIntake('open')
    expect(await site.read()).toMatchObject({ role: 'leader', intake: 'open' })
  })

  it('opens from closed only by reopen, for the epoch that closed it', async () => {
    await site.lead()
    await site.close(1_000)
    await site.close(1_000)
    expect(await refused(() => site.setIntake('open'))).toBe('SITE_CLOSED')
    expect(await refused(() => site.setIntake('draining'))).toBe('SITE_CLOSED')
    expect(await refused(() => site.reopen(2))).toBe('EPOCH_STALE')
    await site.reopen(1)
    await site.reopen(1)
    await run(addJob())
  })

  it('of a replica or of a site that is alone is not to be closed or opened', async () => {
    expect(await refused(() => site.close(100))).toBe('SITE_NOT_LEADER')
    expect(await refused(() => site.reopen(1))).toBe('SITE_NOT_LEADER')
    await site.follow({ lineage, epoch: 1, leader: 'north' })
    await site.close(100)
    expect(await refused(() => site.setIntake('open'))).toBe('SITE_IS_REPLICA')
    expect(await refused(() => site.reopen(1))).toBe('SITE_IS_REPLICA')
  })
})

describe('to promote', () => {
  beforeEach(async () => {
    await site.follow({ lineage, epoch: 1, leader: 'north' })
    await run('UPDATE sync_cursors SET pos = shard * 10')
  })
  const cursors = zeros.map((_zero, shard) => shard * 10)

  it('opens, numbers on from the cursors, and needs no seeding; again changes nothing', async () => {
    const state = { role: 'leader', intake: 'open', epoch: 2, lineage, leader: null }
    expect(await site.promote({ epoch: 2, lineage, heads: cursors })).toEqual(state)
    expect(
      await count(
        'change_heads h JOIN sync_cursors c USING (shard) WHERE h.pos = c.pos AND h.pos = shard * 10',
      ),
    ).toBe(16)
    await run(addJob())
    const before = await everything()
    expect(await site.promote({ epoch: 2, lineage, heads: cursors })).toEqual(state)
    expect(await site.promote({ epoch: 2, lineage })).toEqual(state)
    expect(await everything()).toEqual(before)
    expect(await count(`sync_seeds WHERE type = '*' AND done`)).toBe(1)
  })

  it('is refused when the heads are not the cursors, also again', async () => {
    const further = cursors.with(3, 31)
    expect(await refused(() => site.promote({ epoch: 2, lineage, heads: further }))).toBe('SYNC_BEHIND')
    await expect(site.promote({ epoch: 2, lineage, heads: further })).rejects.toThrow(
      'shard 3 is at position 30 and should be at 31 (1 shards differ)',
    )
    expect(await refused(() => site.promote({ epoch: 2, lineage, heads: [] }))).toBe('SYNC_BEHIND')
    await site.promote({ epoch: 2, lineage })
    expect(await refused(() => site.promote({ epoch: 2, lineage, heads: further }))).toBe('SYNC_BEHIND')
  })

  it('is refused for another epoch than the next, and for another lineage', async () => {
    for (const epoch of [0, 1, 3])
      expect(await refused(() => site.promote({ epoch, lineage }))).toBe('EPOCH_STALE')
    const foreign = '00000000-0000-4000-8000-000000000002'
    expect(await refused(() => site.promote({ epoch: 2, lineage: foreign }))).toBe('LINEAGE_FOREIGN')
  })

  it('has one winner of two that come at once', async () => {
    const results = await Promise.all([
      codeFrom(site.promote({ epoch: 2, lineage })),
      codeFrom(site.promote({ epoch: 2, lineage, heads: zeros })),
      codeFrom(site.follow({ lineage, epoch: 3, leader: 'south' })),
    ])
    const { role } = await site.read()
    expect(results.indexOf('done')).toBe(role === 'leader' ? 0 : 2)
    expect(results.filter((each) => each === 'done')).toHaveLength(1)
  })

  it('is not for a site that is alone', async () => {
    await site.promote({ epoch: 2, lineage })
    await run(`UPDATE site SET role = 'alone', lineage = NULL`)
    expect(await refused(() => site.promote({ epoch: 3, lineage }))).toBe('SITE_NOT_LEADER')
  })
})

describe('to close a site of an epoch', () => {
  it('leaves one alone that leads at another by now: who decided it has slept meanwhile', async () => {
    await site.lead()
    expect(await refused(() => site.close(1_000, 0))).toBe('EPOCH_STALE')
    await site.close(1_000, 1)
    expect((await site.read()).intake).toBe('closed')
  })
})

describe('to demote', () => {
  it('takes back what was under way, so that the next promotion has nothing left to do', async () => {
    await site.lead()
    await run(addJob())
    await run(`UPDATE jobs SET run_token = gen_random_uuid(), runner = 'r', started_at = now()`)
    await run(
      `INSERT INTO pushes (id, device, shard, state, priority, expires_at, due_at, delivered_seq, delivered_at)
       VALUES (gen_random_uuid(), 'd', 1, 'delivered', true, now() + interval '1 hour', now(), 7, now())`,
    )
    await site.demote({ epoch: 2, leader: 'south', cursors: zeros })
    expect(await count('jobs WHERE run_token IS NOT NULL')).toBe(0)
    expect((await run('SELECT state, delivered_seq FROM pushes')).rows).toEqual([
      { state: 'pending', delivered_seq: null },
    ])
  })

  it('closes, takes the cursors, and sets aside what is above them; again changes nothing', async () => {
    const { lineage: own } = await site.lead()
    await putChanges(5, [1, 2, 3])
    await run(addJob())
    const to = { epoch: 2, leader: 'south', cursors: zeros.with(5, 2) }
    const state = { role: 'replica', intake: 'closed', epoch: 2, lineage: own, leader: 'south' }
    expect(await site.demote(to)).toEqual(state)
    expect(await count('sync_cursors WHERE pos = CASE shard WHEN 5 THEN 2 ELSE 0 END')).toBe(16)
    const { rows } = await run('SELECT type, id, pos, kind, hash, epoch FROM sync_tail ORDER BY pos')
    const pending = { type: 'job', id: expect.any(String), pos: null, kind: null, hash: null, epoch: '1' }
    expect(rows).toEqual([{ ...pending, id: 'x3', pos: '3', kind: 'upsert', hash: 'h' }, pending])
    expect(await count('changes')).toBe(2)
    expect(await count('change_pending')).toBe(0)
    expect(await codeFrom(run(addJob()))).toBe('SITE_CLOSED')
    const before = await everything()
    expect(await site.demote(to)).toEqual(state)
    expect(await everything()).toEqual(before)
  })

  it('leaves nothing aside when the cursors are the heads, and comes back by a promote', async () => {
    const { lineage: own } = await site.lead()
    await putChanges(5, [1, 2])
    await site.close(1_000)
    await site.demote({ epoch: 2, leader: 'south', cursors: zeros.with(5, 2) })
    expect(await count('sync_tail')).toBe(0)
    await site.promote({ epoch: 3, lineage: own ?? '', heads: zeros.with(5, 2) })
    await run(addJob())
  })

  it('is refused for an epoch that is not higher, for cursors above the heads, and for who does not lead', async () => {
    const to = { epoch: 2, leader: 'south', cursors: zeros }
    expect(await refused(() => site.demote(to))).toBe('SITE_NOT_LEADER')
    await site.lead()
    expect(await refused(() => site.demote({ ...to, epoch: 1 }))).toBe('EPOCH_STALE')
    expect(await refused(() => site.demote({ ...to, cursors: zeros.with(0, 1) }))).toBe('SYNC_BEHIND')
    expect(await refused(() => site.demote({ ...to, cursors: [] }))).toBe('SYNC_BEHIND')
    await site.demote(to)
    expect(await refused(() => site.demote({ ...to, epoch: 3 }))).toBe('SITE_IS_REPLICA')
    expect(await refused(() => site.demote({ ...to, epoch: 1 }))).toBe('EPOCH_STALE')
  })
})
