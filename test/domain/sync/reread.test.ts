import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { sha256 } from '../../../src/core/digest.ts'
import { createReread, type Reread } from '../../../src/domain/sync/reread.ts'
import { createSeeding } from '../../../src/domain/sync/seeding.ts'
import { createSequencer } from '../../../src/domain/sync/sequencer.ts'
import { createPostgres, type Postgres } from '../../../src/platform/postgres/postgres.ts'
import { createSite, type Site } from '../../../src/platform/replication/site.ts'
import { testDatabase } from '../../support/databases.ts'
import { createThings, putThing, thingType } from './things.ts'

const types = [thingType()]
const { signal } = new AbortController()
let postgres: Postgres
let site: Site
let reread: Reread

beforeEach(async () => {
  const { url } = await testDatabase()
  postgres = createPostgres({ url, max: 8, applicationName: 'test', onError: () => undefined })
  await createThings(postgres)
  site = createSite({ postgres })
  reread = createReread({ postgres, types, clock: createSystemClock(), batch: 7, perSecond: 1_000_000 })
})
afterEach(() => postgres.close())

const hashOf = (id: string, value: string): string => sha256(JSON.stringify({ id, value }))
/** As somebody would who switches the triggers off. */
const past = (sql: string) =>
  postgres.transaction(async (client) => {
    await client.query(`SELECT set_config('baton.applying', 'on', true)`)
    await client.query(sql)
  })
const number = async (): Promise<void> => {
  const seeding = createSeeding({ postgres, types })
  while (!(await seeding.step()));
  await createSequencer({ postgres, types }).drain()
}

describe('to read anew', () => {
  beforeEach(async () => {
    await site.lead()
    for (let n = 10; n < 40; n++) await putThing(postgres, `t${n}`, 'a')
    await number()
  })

  it('finds what was changed, added or removed past the triggers', async () => {
    expect(await reread.run({ signal })).toEqual({ objects: 30, differing: [] })
    await past(`UPDATE things SET value = 'b' WHERE id = 't11'`)
    await past(`DELETE FROM things WHERE id IN ('t20', 't39')`)
    await past(`INSERT INTO things (id, value) VALUES ('t99', 'a')`)
    const { differing } = await reread.run({ signal })
    expect(differing.toSorted((a, b) => (a.id < b.id ? -1 : 1))).toEqual([
      { type: 'thing', id: 't11', expected: hashOf('t11', 'a'), found: hashOf('t11', 'b') },
      { type: 'thing', id: 't20', expected: hashOf('t20', 'a'), found: null },
      { type: 'thing', id: 't39', expected: hashOf('t39', 'a'), found: null },
      { type: 'thing', id: 't99', expected: null, found: hashOf('t99', 'a') },
    ])
    const { rows } = await postgres.query<{ shard: number }>(`SELECT change_shard('t11') AS shard`)
    const ofShard = await reread.run({ signal, shard: rows[0]?.shard ?? 0 })
    expect(ofShard.differing.map(({ id }) => id)).toContain('t11')
    expect(ofShard.differing.length).toBeLessThan(4)
  })

  it('does not take what is to be numbered yet for a difference, while others write', async () => {
    const sequencer = createSequencer({ postgres, types })
    let writing = true
    const writer = (async () => {
      for (let turn = 0; writing; turn++) {
        await putThing(postgres, `t${10 + (turn % 30)}`, `${turn}`)
        if (turn % 10 === 0) await postgres.query(`DELETE FROM things WHERE id = 't${10 + (turn % 29)}'`)
        if (turn % 3 === 0) await sequencer.drain()
      }
    })()
    for (let round = 0; round < 10; round++) expect((await reread.run({ signal })).differing).toEqual([])
    writing = false
    await writer
  })

  it('ends when it is told to, and keeps to its rate', async () => {
    const ending = new AbortController()
    const slow = createReread({ postgres, types, clock: createSystemClock(), batch: 7, perSecond: 1 })
    const running = slow.run({ signal: ending.signal })
    ending.abort()
    expect((await running).objects).toBeLessThan(8)
  })
})

describe('to read anew what is not seeded yet', () => {
  it('finds no difference in what nobody has handed over', async () => {
    await putThing(postgres, 't1', 'a')
    await site.lead()
    expect(await reread.run({ signal })).toEqual({ objects: 1, differing: [] })
    await number()
    expect(await reread.run({ signal })).toEqual({ objects: 1, differing: [] })
  })
})
