import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { createSyncLease, type SyncLease } from '../../../src/domain/sync/lease.ts'
import { createPostgres, type Postgres } from '../../../src/platform/postgres/postgres.ts'
import { testDatabase } from '../../support/databases.ts'
import { eventually } from '../../support/processes.ts'

let postgres: Postgres
let leases: SyncLease[] = []

beforeEach(async () => {
  const { url } = await testDatabase()
  postgres = createPostgres({ url, max: 10, applicationName: 'test', onError: () => undefined })
})
afterEach(async () => {
  for (const lease of leases.splice(0)) await lease.release()
  await postgres.close()
})

/** @param clock whose monotonic time can be put forward; sleeping takes no time of it */
const lease = (holder: string, clock = createSystemClock(), over: Postgres = postgres): SyncLease => {
  const made = createSyncLease({ postgres: over, clock, holder })
  leases.push(made)
  return made
}
const row = async () =>
  (
    await postgres.query<{ holder: string | null; left: number }>(
      `SELECT holder, extract(epoch FROM until - clock_timestamp())::float8 AS left FROM sync_lease`,
    )
  ).rows[0]

describe('the lease of replication', () => {
  it('has one holder, who gives it back', async () => {
    const [a, b] = [lease('a'), lease('b')]
    expect([a.holds(), await a.acquire(), await a.acquire(), await b.acquire()]).toEqual([
      false,
      true,
      true,
      false,
    ])
    expect([a.holds(), b.holds()]).toEqual([true, false])
    await b.release()
    expect((await row())?.holder).toBe('a')
    await a.release()
    expect([a.holds(), await b.acquire(), await a.acquire()]).toEqual([false, true, false])
    await b.release()
    expect(await a.acquire()).toBe(true)
  })

  it('is free when it lasts longer than one can: the clock of Postgres was put back since it was taken', async () => {
    await postgres.query(
      `UPDATE sync_lease SET holder = 'dead', until = clock_timestamp() + interval '1 hour'`,
    )
    expect(await lease('a').acquire()).toBe(true)
    expect((await row())?.left).toBeLessThan(6)
  })

  it('goes to one of many who ask at once', async () => {
    const many = Array.from({ length: 10 }, (_each, n) => lease(`${n}`))
    const got = await Promise.all(many.map((each) => each.acquire()))
    expect(got.filter(Boolean)).toHaveLength(1)
    expect(many.map((each) => each.holds())).toEqual(got)
  })

  it('is renewed each second for 5 s, and is taken over when its holder is dead', async () => {
    const a = lease('a')
    await a.acquire()
    expect((await row())?.left).toBeGreaterThan(4)
    await postgres.query(`UPDATE sync_lease SET until = until - interval '3 seconds'`)
    await eventually(async () => expect((await row())?.left).toBeGreaterThan(3))
    await a.release()
    // Dead: nobody renews it, and nobody gave it back.
    await postgres.query(
      `UPDATE sync_lease SET holder = 'dead', until = clock_timestamp() + interval '1 second'`,
    )
    const b = lease('b')
    expect(await b.acquire()).toBe(false)
    await eventually(async () => expect(await b.acquire()).toBe(true))
    expect((await row())?.holder).toBe('b')
  })

  it('is lost by who can no longer renew it, before another may have it', async () => {
    let nowMs = 0
    const clock = { ...createSystemClock(), monotonicMs: () => nowMs }
    const a = lease('a', clock)
    await a.acquire()
    nowMs = 3_999
    expect(a.holds()).toBe(true)
    nowMs = 4_000
    expect(a.holds()).toBe(false)
  })

  it('is lost at once by who finds another in its place', async () => {
    const a = lease('a')
    await a.acquire()
    await postgres.query(`UPDATE sync_lease SET holder = 'b'`)
    await eventually(async () => expect(a.holds()).toBe(false))
    expect(await a.acquire()).toBe(false)
  })

  it('is nobody’s without Postgres, which is no error of who asks', async () => {
    const gone = createPostgres({
      url: 'postgres://127.0.0.1:1/none',
      max: 1,
      applicationName: 'test',
      onError: () => undefined,
    })
    const told: unknown[] = []
    const a = createSyncLease({
      postgres: gone,
      clock: createSystemClock(),
      holder: 'a',
      onError: (error) => void told.push(error),
    })
    expect(await a.acquire()).toBe(false)
    await a.release()
    expect(told.length).toBe(2)
    await gone.close()
  })
})
