import { pino } from 'pino'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { newId } from '../../../src/core/ids.ts'
import { createAuditLog } from '../../../src/platform/access/audit-log.ts'
import { createPostgres, type Postgres } from '../../../src/platform/postgres/postgres.ts'
import { type BulkRetries, createBulkRetries } from '../../../src/platform/queues/bulk-retry.ts'
import type { Ledger } from '../../../src/platform/queues/ledger.ts'
import { createLedger } from '../../../src/platform/queues/ledger-postgres.ts'
import { testDatabase } from '../../support/databases.ts'
import { eventually } from '../../support/processes.ts'

const clock = createSystemClock()
const log = pino({ level: 'silent' })
let postgres: Postgres
let ledger: Ledger
let retries: BulkRetries

beforeAll(async () => {
  const { url } = await testDatabase()
  postgres = createPostgres({ url, max: 6, applicationName: 'test', onError: () => undefined })
  ledger = createLedger({ postgres, clock })
  retries = createBulkRetries({ postgres, ledger, clock, log })
})
afterAll(() => postgres.close())
beforeEach(async () => {
  await postgres.query('TRUNCATE jobs, bulk_retries, audit_log')
})

const error = { code: 'JOB_FAILED', message: 'no' }

async function fail(ids: string[]): Promise<void> {
  const run = { token: crypto.randomUUID(), runner: 'r' }
  await Promise.all(ids.map((id) => ledger.start(id, run)))
  await Promise.all(ids.map((id) => ledger.finish(id, run.token, { kind: 'failed', error })))
}

async function addFailed(count: number, job: { name?: string; queue?: string } = {}): Promise<string[]> {
  const rows = Array.from({ length: count }, () => ({
    id: newId(clock.now()),
    name: 'mail',
    queue: 'default',
    payload: {},
    priority: 0,
    maxAttempts: 1,
    delayMs: 0,
    queued: true,
    ...job,
  }))
  await ledger.insert(rows)
  const ids = rows.map((row) => row.id)
  await fail(ids)
  return ids
}

const countFailed = async (): Promise<number> =>
  Number(
    (await postgres.query<{ n: string }>(`SELECT count(*) AS n FROM jobs WHERE outcome = 'failed'`)).rows[0]
      ?.n,
  )

/** Works in so many processes at once until `done`; then each has let go. */
async function working(processes: number, done: () => Promise<void>, over = retries): Promise<void> {
  const end = new AbortController()
  const all = Array.from({ length: processes }, () => over.work(end.signal))
  try {
    await done()
  } finally {
    end.abort()
    await Promise.all(all)
  }
}

const begin = (perSecond = 1_000, filter: { name?: string; queue?: string } = {}) =>
  retries.begin({ actor: 'ann', filter, perSecond })

const untilEnded = (id: string): Promise<void> =>
  eventually(
    async () => expect((await retries.list(10)).find((each) => each.id === id)?.state).toBe('done'),
    { timeoutMs: 30_000 },
  )

describe('a retry of all that match', () => {
  it('retries those that match and no other, and tells how many', async () => {
    await addFailed(7, { name: 'mail', queue: 'a' })
    await addFailed(2, { name: 'mail', queue: 'b' })
    await addFailed(3, { name: 'report', queue: 'a' })
    const { retry, begun } = await begin(1_000, { name: 'mail', queue: 'a' })
    expect(begun).toBe(true)
    expect(retry).toMatchObject({
      state: 'running',
      matched: 7,
      matchedExact: true,
      retried: 0,
      actor: 'ann',
    })
    await working(1, () => untilEnded(retry.id))
    expect(await countFailed()).toBe(5)
    expect((await retries.list(1))[0]).toMatchObject({ state: 'done', retried: 7 })
  })

  it('does not retry what fails again, so it comes to an end', async () => {
    const ids = await addFailed(5)
    const { retry } = await begin(2)
    await working(1, async () => {
      const again = new Set<string>()
      await eventually(
        async () => {
          const waiting = (await ledger.getMany(ids)).filter((job) => job.state === 'waiting')
          for (const { id } of waiting) again.add(id)
          await fail(waiting.map((job) => job.id))
          expect((await retries.list(1))[0]?.state).toBe('done')
        },
        { timeoutMs: 30_000, everyMs: 50 },
      )
      expect(again.size).toBe(5)
    })
    expect((await retries.list(1))[0]).toMatchObject({ id: retry.id, retried: 5 })
    expect((await ledger.getMany(ids)).map((job) => job.retried)).toEqual([1, 1, 1, 1, 1])
  })

  it('keeps to its rate, however many processes work at it', async () => {
    await addFailed(40)
    const startedAt = performance.now()
    const { retry } = await begin(10)
    let most = 0
    await working(3, async () => {
      await eventually(
        async () => {
          const { retried = 0 } = (await retries.list(1))[0] ?? {}
          const allowed = 10 * (Math.floor((performance.now() - startedAt) / 1_000) + 1)
          most = Math.max(most, retried - allowed)
          expect(retried).toBe(40)
        },
        { timeoutMs: 30_000 },
      )
      await untilEnded(retry.id)
    })
    expect(most).toBeLessThanOrEqual(0)
    expect(performance.now() - startedAt).toBeGreaterThan(3_000)
  })

  it('goes on in another process when one dies in the midst of a bite', async () => {
    await addFailed(6)
    const { retry } = await begin(3)
    const dying = createBulkRetries({
      postgres,
      ledger: { retryFailed: async () => Promise.reject(new Error('gone')) },
      clock,
      log,
    })
    await working(
      1,
      () =>
        eventually(async () => {
          const { rows } = await postgres.query<{ held: boolean }>(
            'SELECT lease_until > now() AS held FROM bulk_retries',
          )
          expect(rows[0]?.held).toBe(true)
        }),
      dying,
    )
    // The time for which the dead one holds it, cut short.
    await postgres.query('UPDATE bulk_retries SET lease_until = now()')
    await working(1, () => untilEnded(retry.id))
    expect(await countFailed()).toBe(0)
  })

  it('is not begun twice for the same jobs while it runs, but for others', async () => {
    await addFailed(3)
    const first = await begin(1, { name: 'mail' })
    expect(await begin(50, { name: 'mail' })).toEqual({ retry: first.retry, begun: false })
    expect((await begin(1, { queue: 'default' })).begun).toBe(true)
    expect((await begin(1)).begun).toBe(true)
    expect((await begin(1)).begun).toBe(false)
  })

  it('stops when somebody says so, once, and leaves the rest as it is', async () => {
    await addFailed(30)
    const { retry } = await begin(1)
    expect(await retries.stop(retry.id, 'bob')).toBe(true)
    expect(await retries.stop(retry.id, 'bob')).toBe(false)
    await working(1, async () => {
      await begin(1_000, { name: 'nothing' })
      await eventually(async () => expect((await retries.list(2))[0]?.state).toBe('done'))
    })
    expect(await countFailed()).toBe(30)
    const entries = await createAuditLog({ postgres }).list({ limit: 10, subject: retry.id })
    expect(entries.map((entry) => `${entry.actor} ${entry.action}`)).toEqual([
      'bob jobs.retry-all.stop',
      'ann jobs.retry-all',
    ])
  })

  it('passes over rows that somebody holds, and comes back for them', async () => {
    const [held = ''] = await addFailed(4)
    const [locked, released] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    const holding = postgres.transaction(async (client) => {
      await client.query('SELECT FROM jobs WHERE id = $1 FOR UPDATE', [held])
      locked.resolve()
      await released.promise
    })
    await locked.promise
    const { retry } = await begin(1_000)
    await working(1, async () => {
      await eventually(async () => expect((await retries.list(1))[0]?.retried).toBe(3))
      expect((await retries.list(1))[0]?.state).toBe('running')
      released.resolve()
      await holding
      await untilEnded(retry.id)
    })
    expect(await countFailed()).toBe(0)
  })
})
