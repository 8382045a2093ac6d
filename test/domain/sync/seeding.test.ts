import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createSeeding } from '../../../src/domain/sync/seeding.ts'
import { createSequencer } from '../../../src/domain/sync/sequencer.ts'
import { readSync } from '../../../src/domain/sync/sync-view.ts'
import { createPostgres, type Postgres } from '../../../src/platform/postgres/postgres.ts'
import type { ReplicatedType } from '../../../src/platform/replication/replicated.ts'
import { createSite, type Site } from '../../../src/platform/replication/site.ts'
import { testDatabase } from '../../support/databases.ts'
import { createThings, dyingBefore, putThing, thingType } from './things.ts'

let postgres: Postgres
let site: Site
const nothing: ReplicatedType = { ...thingType(), type: 'none', scan: async () => [] }
const types = [nothing, thingType()]

beforeEach(async () => {
  const { url } = await testDatabase()
  postgres = createPostgres({ url, max: 8, applicationName: 'test', onError: () => undefined })
  await createThings(postgres)
  site = createSite({ postgres })
})
afterEach(() => postgres.close())

const handedOver = async (): Promise<string[]> =>
  (await postgres.query<{ id: string }>('SELECT id FROM change_pending ORDER BY n')).rows.map(({ id }) => id)

describe('the seeding', () => {
  it('hands over what was there before, bite by bite, once', async () => {
    for (let n = 10; n < 35; n++) await putThing(postgres, `t${n}`, 'a')
    await site.lead()
    const seeding = createSeeding({ postgres, types, batch: 10 })
    expect(await seeding.isDone()).toBe(false)
    const steps: boolean[] = []
    while (!steps.at(-1)) steps.push(await seeding.step())
    expect(steps).toEqual([false, false, false, true])
    expect(await handedOver()).toEqual(Array.from({ length: 25 }, (_each, n) => `t${n + 10}`))
    expect(await seeding.isDone()).toBe(true)
    expect(await seeding.step()).toBe(true)
    expect((await handedOver()).length).toBe(25)
    await createSequencer({ postgres, types }).drain()
    expect((await postgres.query(`SELECT FROM changes WHERE kind = 'upsert'`)).rows).toHaveLength(25)
  })

  it('is not told as done while a type was not begun', async () => {
    await site.lead()
    const view = async (names: string[]) =>
      (await readSync(postgres, { site, name: 'here', types: names })).site.seeding.done
    const names = types.map(({ type }) => type)
    expect(await view(names)).toBe(false)
    while (!(await createSeeding({ postgres, types }).step()));
    expect(await view(names)).toBe(true)
    expect(await view([...names, 'other'])).toBe(false)
  })

  it('puts each object into its shard', async () => {
    await putThing(postgres, 't', 'a')
    await site.lead()
    const seeding = createSeeding({ postgres, types })
    while (!(await seeding.step()));
    const { rows } = await postgres.query(`SELECT shard = change_shard('t') AS right FROM change_pending`)
    expect(rows).toEqual([{ right: true }])
  })

  it('goes on from its bookmark when it dies anywhere, and two at once hand over everything', async () => {
    for (let n = 10; n < 60; n++) await putThing(postgres, `t${n}`, 'a')
    await site.lead()
    for (let nth = 1; nth < 7; nth++) {
      const dying = dyingBefore(postgres, nth)
      await createSeeding({ postgres: dying.postgres, types: [thingType()], batch: 5 })
        .step()
        .catch(() => undefined)
    }
    const both = [1, 2].map(() => createSeeding({ postgres, types: [thingType()], batch: 3 }))
    await Promise.all(
      both.map(async (each) => {
        while (!(await each.step()));
      }),
    )
    expect(await handedOver()).toEqual(Array.from({ length: 50 }, (_each, n) => `t${n + 10}`))
  })

  it('is nothing that a site does which does not lead, nor one that was promoted', async () => {
    const seeding = createSeeding({ postgres, types })
    expect([await seeding.step(), await seeding.isDone()]).toEqual([false, false])
    const lineage = '00000000-0000-4000-8000-000000000001'
    await site.follow({ lineage, epoch: 1, leader: 'north' })
    expect([await seeding.step(), await seeding.isDone()]).toEqual([false, false])
    await site.promote({ epoch: 2, lineage })
    expect([await seeding.step(), await seeding.isDone()]).toEqual([true, true])
  })
})
