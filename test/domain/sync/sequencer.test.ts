import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { sha256 } from '../../../src/core/digest.ts'
import { createSequencer, type Sequencer } from '../../../src/domain/sync/sequencer.ts'
import { createPostgres, type Postgres } from '../../../src/platform/postgres/postgres.ts'
import { createSite, type Site } from '../../../src/platform/replication/site.ts'
import { testDatabase } from '../../support/databases.ts'
import { eventually } from '../../support/processes.ts'
import { createThings, dyingBefore, putThing, thingType } from './things.ts'

let postgres: Postgres
let site: Site
let sequencer: Sequencer
const types = [thingType()]

beforeEach(async () => {
  const { url } = await testDatabase()
  postgres = createPostgres({ url, max: 16, applicationName: 'test', onError: () => undefined })
  await createThings(postgres)
  site = createSite({ postgres })
  await site.lead()
  sequencer = createSequencer({ postgres, types })
})
afterEach(() => postgres.close())

interface Change {
  id: string
  shard: number
  pos: number
  kind: string
  hash: string | null
  epoch: number
}
const changes = async (): Promise<Change[]> =>
  (
    await postgres.query<Change & Record<string, unknown>>(
      `SELECT id, shard, pos::int AS pos, kind, hash, epoch::int AS epoch FROM changes ORDER BY id`,
    )
  ).rows
const changeOf = async (id: string) => (await changes()).find((each) => each.id === id)
const hashOf = (id: string, value: string): string => sha256(JSON.stringify({ id, value }))
const pending = async (): Promise<number> =>
  Number((await postgres.query<{ n: string }>('SELECT count(*) AS n FROM change_pending')).rows[0]?.n)
/** What the log has to say of what is there. */
const expectSound = async (): Promise<void> => {
  const { rows } = await postgres.query<{ id: string; value: string }>(
    'SELECT id, value FROM things ORDER BY id',
  )
  const known = (await changes()).filter(({ kind }) => kind === 'upsert')
  expect(known.map(({ id, hash }) => [id, hash])).toEqual(
    rows.map(({ id, value }) => [id, hashOf(id, value)]),
  )
  const heads = await sequencer.heads()
  for (const { shard, pos } of await changes()) expect(pos).toBeLessThanOrEqual(heads[shard] ?? -1)
}

describe('the sequencer', () => {
  it('gives each object the position of its last change, without gaps, in its shard', async () => {
    for (let n = 0; n < 40; n++) await putThing(postgres, `t${n}`, 'a')
    expect(await sequencer.drain()).toBe(40)
    expect(await sequencer.drain()).toBe(0)
    await expectSound()
    const heads = await sequencer.heads()
    expect(heads.reduce((sum, head) => sum + head, 0)).toBe(40)
    for (const shard of heads.keys()) {
      const positions = (await changes()).filter((each) => each.shard === shard).map(({ pos }) => pos)
      expect(positions.toSorted((a, b) => a - b)).toEqual(positions.map((_pos, n) => n + 1))
    }
    expect(await postgres.query('SELECT DISTINCT epoch FROM changes').then(({ rows }) => rows)).toEqual([
      { epoch: '1' },
    ])
  })

  it('keeps the position of content that has not changed', async () => {
    await putThing(postgres, 't', 'a')
    await sequencer.drain()
    const before = await changeOf('t')
    await putThing(postgres, 't', 'a')
    expect(await sequencer.drain()).toBe(1)
    expect(await changeOf('t')).toEqual(before)
    await putThing(postgres, 't', 'b')
    await sequencer.drain()
    expect(await changeOf('t')).toEqual({ ...before, pos: 2, hash: hashOf('t', 'b') })
  })

  it('makes a tombstone of what is gone, once, and an object of what comes back', async () => {
    await putThing(postgres, 't', 'a')
    await sequencer.drain()
    await postgres.query('DELETE FROM things')
    await sequencer.drain()
    expect(await changeOf('t')).toMatchObject({ pos: 2, kind: 'delete', hash: null })
    await postgres.query(
      `INSERT INTO change_pending (shard, type, id) VALUES (change_shard('t'), 'thing', 't')`,
    )
    await sequencer.drain()
    expect(await changeOf('t')).toMatchObject({ pos: 2, kind: 'delete' })
    await putThing(postgres, 't', 'a')
    await sequencer.drain()
    expect(await changeOf('t')).toMatchObject({ pos: 3, kind: 'upsert', hash: hashOf('t', 'a') })
  })

  it('forgets what retention removed, and says nothing of what came and went unseen', async () => {
    const forgetful = createSequencer({ postgres, types: [thingType({ absentKind: 'forget' })] })
    await putThing(postgres, 't', 'a')
    await forgetful.drain()
    await putThing(postgres, 'brief', 'a')
    await postgres.query('DELETE FROM things')
    await forgetful.drain()
    expect((await changes()).map(({ id, kind }) => [id, kind])).toEqual([['t', 'forget']])
  })

  it('never lets a reader that polls by position lose a row, with 8 writers and two sequencers', async () => {
    const others = [sequencer, createSequencer({ postgres, types, batch: 7 })]
    let writing = true
    const cursors = Array.from({ length: 16 }, () => 0)
    const copy = new Map<string, string | null>()
    const gaps: string[] = []
    const poll = async (): Promise<void> => {
      for (const [shard, cursor] of cursors.entries()) {
        const { rows } = await postgres.query<{ id: string; pos: string; hash: string | null }>(
          'SELECT id, pos, hash FROM changes WHERE shard = $1 AND pos > $2 ORDER BY pos',
          [shard, cursor],
        )
        for (const row of rows) {
          if (Number(row.pos) <= (cursors[shard] ?? 0)) gaps.push(row.id)
          copy.set(row.id, row.hash)
          cursors[shard] = Number(row.pos)
        }
      }
    }
    const writer = async (n: number): Promise<void> => {
      for (let turn = 0; turn < 60; turn++) {
        await postgres.transaction(async (client) => {
          const own = [`w${n}-${turn % 9}`, `w${n}-${(turn + 4) % 9}`]
          for (const id of own) await putThing(client, id, `${turn}`)
          if (turn % 5 === 0) await client.query('DELETE FROM things WHERE id = $1', [own[0]])
          if (turn % 7 === 0) await client.query('SELECT pg_sleep(0.005)')
        })
      }
    }
    const loops = [
      ...others.map(async (each) => {
        while (writing) await each.drain()
      }),
      (async () => {
        while (writing) await poll()
      })(),
    ]
    await Promise.all(Array.from({ length: 8 }, (_each, n) => writer(n)))
    writing = false
    await Promise.all(loops)
    await sequencer.drain()
    expect(await pending()).toBe(0)
    await poll()
    await expectSound()
    const there = [...copy].filter(([, hash]) => hash !== null).toSorted(([a], [b]) => (a < b ? -1 : 1))
    const known = (await changes()).filter(({ kind }) => kind === 'upsert')
    expect(there).toEqual(known.map(({ id, hash }) => [id, hash]))
    expect(gaps).toEqual([])
    expect(cursors).toEqual(await sequencer.heads())
  })

  it('numbers nothing that has not committed, and what is written while it reads once more', async () => {
    const written = Promise.withResolvers<void>()
    const go = Promise.withResolvers<void>()
    const writer = postgres.transaction(async (client) => {
      await putThing(client, 't', 'a')
      written.resolve()
      await go.promise
    })
    await written.promise
    expect(await sequencer.drain()).toBe(0)
    go.resolve()
    await writer
    const [type] = types
    if (!type) throw new Error('no type')
    const interrupted = createSequencer({
      postgres,
      types: [
        {
          ...type,
          read: async (ids, database) => {
            const images = await type.read(ids, database)
            await putThing(postgres, 't', 'b')
            return images
          },
        },
      ],
    })
    await interrupted.drainShard((await shardOf('t')) ?? 0)
    await sequencer.drain()
    expect(await changeOf('t')).toMatchObject({ hash: hashOf('t', 'b') })
    expect(await pending()).toBe(0)
  })

  it('loses nothing when its connection dies before any of its statements', async () => {
    let deaths = 0
    for (let nth = 1; ; nth++) {
      await putThing(postgres, 'same', `${nth}`)
      await putThing(postgres, `new ${nth}`, 'a')
      await postgres.query(`DELETE FROM things WHERE id = $1`, [`new ${nth - 1}`])
      const dying = dyingBefore(postgres, nth)
      await createSequencer({ postgres: dying.postgres, types, batch: 2 })
        .drain()
        .catch(() => undefined)
      if (!dying.died()) break
      deaths++
      expect(await pending()).toBeGreaterThan(0)
      await sequencer.drain()
      await expectSound()
    }
    expect(deaths).toBeGreaterThan(6)
    await expectSound()
  })

  it('numbers the rest when one object cannot be read, and that one when it can', async () => {
    const told: unknown[] = []
    const careful = createSequencer({
      postgres,
      types: [thingType({ bad: 'bad' })],
      batch: 1_000,
      onError: (_error, object) => void told.push(object),
    })
    const shard = await shardOf('bad')
    await putThing(postgres, 'bad', 'a')
    for (let n = 0; n < 50; n++) await putThing(postgres, `t${n}`, 'a')
    await postgres.query(`INSERT INTO change_pending (shard, type, id) VALUES (0, 'unheard of', 'x')`)
    expect(await careful.drain()).toBe(50)
    expect(told).toContainEqual({ type: 'thing', id: 'bad' })
    expect(await pending()).toBe(2)
    expect(await careful.drain()).toBe(0)
    expect(await careful.atHead(shard ?? 0, async () => 'goes on')).toBe('goes on')
    expect(await sequencer.drain()).toBe(1)
    await postgres.query('DELETE FROM change_pending')
    await expectSound()
  })

  it('fails, with all still pending, when it is not the object that is at fault', async () => {
    await putThing(postgres, 't', 'a')
    const [type] = types
    if (!type) throw new Error('no type')
    const away = createSequencer({
      postgres,
      types: [{ ...type, read: () => Promise.reject(Object.assign(new Error('gone'), { code: '57P01' })) }],
    })
    await expect(away.drain()).rejects.toThrow('gone')
    expect(await pending()).toBe(1)
  })

  it('takes no work of a site that does not lead, and numbers on from the cursors after a promotion', async () => {
    const { lineage } = await site.read()
    await site.demote({ epoch: 2, leader: 'other', cursors: Array.from({ length: 16 }, () => 0) })
    await postgres.query(`INSERT INTO change_pending (shard, type, id) VALUES (3, 'thing', 't')`)
    expect(await sequencer.drain()).toBe(0)
    expect(await pending()).toBe(1)
    await postgres.query('DELETE FROM change_pending')
    await postgres.query('UPDATE sync_cursors SET pos = 100 + shard')
    await site.promote({ epoch: 3, lineage: lineage ?? '' })
    for (let n = 0; n < 40; n++) await putThing(postgres, `t${n}`, 'a')
    await sequencer.drain()
    for (const each of await changes()) {
      expect(each.pos).toBeGreaterThan(100 + each.shard)
      expect(each.epoch).toBe(3)
    }
  })

  it('ends although others go on writing, and serves all shards', async () => {
    await postgres.query(
      `INSERT INTO change_pending (shard, type, id) SELECT n % 16, 'thing', 't' || n FROM generate_series(1, 1000) n`,
    )
    const small = createSequencer({ postgres, types, batch: 2 })
    expect(await small.drain()).toBe(16 * 2 * 20)
    const { rows } = await postgres.query(`SELECT DISTINCT shard FROM change_pending`)
    expect(rows.length).toBeGreaterThan(10)
  })

  it('shows by the time of a head that an idle shard is looked after, not one with something pending', async () => {
    await postgres.query(`UPDATE change_heads SET at = now() - interval '1 hour'`)
    await postgres.query(`INSERT INTO change_pending (shard, type, id) VALUES (3, 'unheard of', 'x')`)
    await createSequencer({ postgres, types: [] }).heads()
    const lock = postgres.transaction(async (client) => {
      await client.query('SELECT FROM change_heads WHERE shard = 4 FOR UPDATE')
      const draining = createSequencer({ postgres, types })
      await postgres.query('DELETE FROM change_pending')
      await draining.drain()
    })
    await lock
    const { rows } = await postgres.query(
      `SELECT shard FROM change_heads WHERE at < now() - interval '1 minute'`,
    )
    expect(rows).toEqual([{ shard: 4 }])
  })
})

describe('work at the head of a shard', () => {
  it('sees nothing pending, and keeps others from numbering until it is done', async () => {
    const shard = (await shardOf('t')) ?? 0
    await putThing(postgres, 't', 'a')
    const inside = Promise.withResolvers<void>()
    const go = Promise.withResolvers<void>()
    const working = sequencer.atHead(shard, async (client, head) => {
      const { rows } = await client.query(`SELECT FROM change_pending WHERE shard = $1`, [shard])
      inside.resolve()
      await go.promise
      return { head, pending: rows.length }
    })
    await inside.promise
    await putThing(postgres, 't', 'b')
    const draining = sequencer.drain()
    await eventually(async () => {
      const { rows } = await postgres.query(`SELECT FROM pg_locks WHERE NOT granted`)
      expect(rows.length).toBeGreaterThan(0)
    })
    expect(await sequencer.heads().then((heads) => heads[shard])).toBe(1)
    go.resolve()
    expect(await working).toEqual({ head: 1, pending: 0 })
    await draining
    expect(await changeOf('t')).toMatchObject({ pos: 2 })
  })

  it('numbers all that is pending in the same transaction, however many batches that takes', async () => {
    const small = createSequencer({ postgres, types, batch: 1 })
    const shard = (await shardOf('t')) ?? 0
    await postgres.query(`INSERT INTO things SELECT 't' || n, 'a' FROM generate_series(1, 600) n`)
    const { rows } = await postgres.query(`SELECT FROM change_pending WHERE shard = $1`, [shard])
    expect(rows.length).toBeGreaterThan(20)
    expect(await small.atHead(shard, async (_client, head) => head)).toBe(rows.length)
  })
})

const shardOf = async (id: string): Promise<number | undefined> =>
  (await postgres.query<{ shard: number }>('SELECT change_shard($1) AS shard', [id])).rows[0]?.shard
