import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createSyncPrune } from '../../../src/domain/sync/prune.ts'
import { createPostgres, type Postgres } from '../../../src/platform/postgres/postgres.ts'
import { createSite, type Site } from '../../../src/platform/replication/site.ts'
import { testDatabase } from '../../support/databases.ts'

let postgres: Postgres
let site: Site

beforeEach(async () => {
  const { url } = await testDatabase()
  postgres = createPostgres({ url, max: 4, applicationName: 'test', onError: () => undefined })
  site = createSite({ postgres })
})
afterEach(() => postgres.close())

const old = `now() - interval '7 days 1 minute'`
const young = `now() - interval '6 days 23 hours'`
const putChange = (id: string, pos: number, kind: string, at: string) =>
  postgres.query(
    `INSERT INTO changes (type, id, shard, pos, epoch, kind, hash, at) VALUES ('thing', $1, 2, $2, 1, $3, $4, ${at})`,
    [id, pos, kind, kind === 'upsert' ? 'h' : null],
  )
const putReplica = (name: string, pos?: number) =>
  postgres.query(
    `WITH made AS (INSERT INTO replicas (name, url, key_sealed, policy) VALUES ($1, 'http://x', 'k', '{}'))
     INSERT INTO replica_cursors (replica, shard, pos) SELECT $1, 2, $2::bigint WHERE $2::bigint IS NOT NULL`,
    [name, pos ?? null],
  )
const left = async (): Promise<string[]> =>
  (await postgres.query<{ id: string }>('SELECT id FROM changes ORDER BY pos')).rows.map(({ id }) => id)
const fill = async (): Promise<void> => {
  await putChange('there', 1, 'upsert', old)
  await putChange('gone long', 2, 'delete', old)
  await putChange('forgotten long', 3, 'forget', old)
  await putChange('gone lately', 4, 'delete', young)
  await putChange('gone long, late', 5, 'delete', old)
}

describe('to prune', () => {
  it('removes old tombstones that every replica has', async () => {
    await site.lead()
    await fill()
    await putReplica('ahead', 5)
    await putReplica('behind', 3)
    const prune = createSyncPrune({ postgres, batch: 1 })
    expect(await prune.run()).toEqual({ tombstones: 2, trash: 0, deletes: 0 })
    expect(await left()).toEqual(['there', 'gone lately', 'gone long, late'])
  })

  it('removes none while a replica has not said where it is', async () => {
    await site.lead()
    await fill()
    await putReplica('ahead', 5)
    await putReplica('new')
    expect(await createSyncPrune({ postgres }).run()).toMatchObject({ tombstones: 0 })
    await postgres.query(`DELETE FROM replicas WHERE name = 'new'`)
    expect(await createSyncPrune({ postgres }).run()).toMatchObject({ tombstones: 3 })
    expect(await left()).toEqual(['there', 'gone lately'])
  })

  it('goes by their age alone on a replica', async () => {
    await site.follow({ lineage: '00000000-0000-4000-8000-000000000001', epoch: 1, leader: 'north' })
    await fill()
    await putReplica('of the time when it led', 0)
    expect(await createSyncPrune({ postgres, batch: 2 }).run()).toMatchObject({ tombstones: 3 })
    expect(await left()).toEqual(['there', 'gone lately'])
  })

  it('removes what is old of the trash and of the counted deletes, and nothing else', async () => {
    await putReplica('r')
    for (const at of [old, young])
      await postgres.query(
        `INSERT INTO sync_trash (type, id, reason, content, epoch, at) VALUES ('thing', 't', 'deleted', '{}', 1, ${at})`,
      )
    await postgres.query(
      `INSERT INTO replica_deletes SELECT 'r', now() - n * interval '1 hour', 1 FROM generate_series(0, 30) n`,
    )
    await postgres.query(
      `INSERT INTO sync_tail (type, id, shard, epoch, at) VALUES ('thing', 't', 0, 1, ${old})`,
    )
    expect(await createSyncPrune({ postgres }).run()).toEqual({ tombstones: 0, trash: 1, deletes: 7 })
    const { rows } = await postgres.query(
      `SELECT (SELECT count(*)::int FROM sync_trash) AS trash, (SELECT count(*)::int FROM sync_tail) AS tail`,
    )
    expect(rows).toEqual([{ trash: 1, tail: 1 }])
  })
})
