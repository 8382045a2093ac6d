import { createHash } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createDigests } from '../../../src/domain/sync/digests.ts'
import { createPostgres, type Postgres } from '../../../src/platform/postgres/postgres.ts'
import { testDatabase } from '../../support/databases.ts'

const digests = createDigests()
let sites: Postgres[] = []

beforeEach(async () => {
  const urls = await Promise.all([testDatabase(), testDatabase()])
  sites = urls.map(({ url }) =>
    createPostgres({ url, max: 1, applicationName: 'test', onError: () => undefined }),
  )
})
afterEach(() => Promise.all(sites.map((each) => each.close())))

const fill = (postgres: Postgres, order: string, from = 1) =>
  postgres.query(
    `INSERT INTO changes (type, id, shard, pos, epoch, kind, hash)
     SELECT CASE WHEN n % 2 = 0 THEN 'job' ELSE 'states' END, 'ö' || n, 3, row_number() OVER (), $1, 'upsert',
       encode(sha256(n::text::bytea), 'hex')
     FROM (SELECT n FROM generate_series($1::int, 2000) n ORDER BY n ${order}) AS s`,
    [from],
  )

const sumByHand = (entries: { type: string; id: string; hash: string }[]): string => {
  const numbers = entries.map(({ type, id, hash }) =>
    createHash('sha256').update(`${type}/${id}/${hash}`).digest().readBigUInt64BE(),
  )
  return (numbers.reduce((sum, each) => sum + each, 0n) % 2n ** 64n).toString()
}

describe('digests', () => {
  it('are equal where the objects are, whatever their order, and say what they say they are', async () => {
    const [one, other] = sites as [Postgres, Postgres]
    await fill(one, 'ASC')
    await fill(other, 'DESC')
    const [left, right] = await Promise.all([digests.of(3, one), digests.of(3, other)])
    expect(left).toHaveLength(256)
    expect(new Set(left).size).toBeGreaterThan(250)
    expect(left).toEqual(right)
    for (const bucket of [0, 77, 255]) {
      const entries = await digests.entries(3, bucket, one)
      expect(entries.length).toBeGreaterThan(0)
      expect(left[bucket]).toBe(sumByHand(entries))
      const firstBytes = entries.map(
        ({ type, id }) => createHash('sha256').update(`${type}/${id}`).digest()[0],
      )
      expect(new Set(firstBytes)).toEqual(new Set([bucket]))
    }
    expect(await digests.of(4, one)).toEqual(Array.from({ length: 256 }, () => '0'))
  })

  it.each([
    ['another hash', `UPDATE changes SET hash = repeat('0', 64) WHERE id = 'ö9'`],
    ['a tombstone', `UPDATE changes SET kind = 'delete', hash = NULL WHERE id = 'ö9'`],
    ['an object that is missing', `DELETE FROM changes WHERE id = 'ö9'`],
  ])('tell the bucket of %s', async (_what, change) => {
    const [one, other] = sites as [Postgres, Postgres]
    await fill(one, 'ASC')
    await fill(other, 'ASC')
    await other.query(change)
    const [left, right] = await Promise.all([digests.of(3, one), digests.of(3, other)])
    const differing = left.flatMap((each, bucket) => (each === right[bucket] ? [] : [bucket]))
    expect(differing).toHaveLength(1)
    const [here, there] = await Promise.all(sites.map((each) => digests.entries(3, differing[0] ?? 0, each)))
    const unmatched = here?.filter(
      (each) => !there?.some(({ id, hash }) => id === each.id && hash === each.hash),
    )
    expect(unmatched?.map(({ id }) => id)).toEqual(['ö9'])
  })
})
