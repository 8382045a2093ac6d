import { Type } from 'typebox'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { createPostgres, type Postgres } from '../../../src/platform/postgres/postgres.ts'
import { type Acceptance, createAcceptance } from '../../../src/platform/queues/accept.ts'
import type { QueueBackend } from '../../../src/platform/queues/backend.ts'
import { createPostgresBackend } from '../../../src/platform/queues/backends/postgres.ts'
import { createRedisBackend } from '../../../src/platform/queues/backends/redis.ts'
import { defineJob } from '../../../src/platform/queues/job.ts'
import type { Ledger } from '../../../src/platform/queues/ledger.ts'
import { createLedger } from '../../../src/platform/queues/ledger-postgres.ts'
import { testDatabase, testRedis } from '../../support/databases.ts'
import { eventually } from '../../support/processes.ts'
import { startRedis } from '../../support/servers.ts'

const clock = createSystemClock()
const run = async (): Promise<void> => undefined
const plain = defineJob({ name: 'plain', payload: Type.Any(), run })
const slow = defineJob({ name: 'slow', queue: 'slow', payload: Type.Any(), run })
const light = defineJob({ name: 'light', payload: Type.Any(), durable: false, run })
const keyed = defineJob({
  name: 'keyed',
  payload: Type.Any(),
  dedupe: ({ key }: { key: string }) => key,
  run,
})

let postgres: Postgres
let ledger: Ledger
beforeAll(async () => {
  const { url } = await testDatabase()
  postgres = createPostgres({ url, max: 8, applicationName: 'test', onError: () => undefined })
  ledger = createLedger({ postgres, clock })
})
afterAll(() => postgres.close())
beforeEach(() => postgres.query('TRUNCATE jobs'))

const acceptanceOf = (
  backend: QueueBackend,
  more: { ledger?: Ledger; maxPending?: number } = {},
): Acceptance => createAcceptance({ postgres, ledger, backend, clock, onError: () => undefined, ...more })
const unqueued = async (): Promise<number> => {
  const { rows } = await postgres.query<{ n: number }>('SELECT count(*)::int AS n FROM jobs WHERE NOT queued')
  return rows[0]?.n ?? -1
}
const total = async (): Promise<number> => {
  const { rows } = await postgres.query<{ n: number }>('SELECT count(*)::int AS n FROM jobs')
  return rows[0]?.n ?? -1
}

const engines: [string, () => Promise<QueueBackend>][] = [
  [
    'Redis',
    async () => {
      const { url, prefix } = await testRedis()
      return createRedisBackend({ url, prefix, clock, onError: () => undefined })
    },
  ],
  [
    'Postgres',
    async () => createPostgresBackend({ url: (await testDatabase()).url, clock, onError: () => undefined }),
  ],
]

describe.each(engines)('acceptance on %s', (_engine, open) => {
  let backend: QueueBackend
  beforeAll(async () => {
    backend = await open()
    await backend.ping(5_000)
  })
  afterAll(() => backend.close())

  it('answers when the rows are committed, and hands entries to their queues', async () => {
    const acceptance = acceptanceOf(backend)
    const before = await backend.counts('default')
    const jobs = [
      { job: plain, payload: 1 },
      { job: slow, payload: 2 },
      { job: plain, payload: 3, delayMs: 60_000 },
    ]
    const accepted = await acceptance.accept(jobs)
    expect(await ledger.getMany(accepted.map(({ id }) => id))).toHaveLength(3)
    expect((await ledger.get(accepted[1]?.id ?? ''))?.payload).toBe(2)
    await acceptance.idle()
    const after = await backend.counts('default')
    expect(after.waiting - before.waiting).toBe(1)
    expect(after.delayed - before.delayed).toBe(1)
    expect((await backend.counts('slow')).waiting).toBe(1)
    expect(await unqueued()).toBe(0)
    expect(acceptance.pending).toBe(0)
  })

  it('gives every one of a thousand concurrent callers its own job, in few statements', async () => {
    let statements = 0
    const counting: Ledger = { ...ledger, insert: (rows) => (statements++, ledger.insert(rows)) }
    const acceptance = acceptanceOf(backend, { ledger: counting })
    const answers = await Promise.all(
      Array.from({ length: 1_000 }, (_, index) => acceptance.accept([{ job: plain, payload: { index } }])),
    )
    const views = await ledger.getMany(answers.map(([accepted]) => accepted?.id ?? ''))
    const payloads = new Map(views.map((view) => [view.id, view.payload]))
    for (const [index, [accepted]] of answers.entries())
      expect(payloads.get(accepted?.id ?? '')).toEqual({ index })
    expect(statements).toBeLessThan(20)
    await acceptance.idle()
  })

  it('adds no second entry for a duplicate', async () => {
    const acceptance = acceptanceOf(backend)
    const before = await backend.counts('default')
    const answers = await Promise.all(
      Array.from({ length: 30 }, () => acceptance.accept([{ job: keyed, payload: { key: 'k' } }])),
    )
    expect(new Set(answers.flat().map(({ id }) => id)).size).toBe(1)
    await acceptance.idle()
    expect((await backend.counts('default')).waiting - before.waiting).toBe(1)
  })

  it('adds work without a row straight to the queue', async () => {
    const acceptance = acceptanceOf(backend)
    const accepted = await acceptance.accept([
      { job: light, payload: { a: 1 }, context: { requestId: 'r' } },
      { job: plain, payload: 2 },
      { job: plain, payload: 3, durable: false },
    ])
    expect(await total()).toBe(1)
    expect(await backend.find('default', accepted[0]?.id ?? '')).toMatchObject({ payload: { a: 1 } })
    expect(await backend.find('default', accepted[2]?.id ?? '')).toMatchObject({ payload: 3 })
  })
})

describe('acceptance', () => {
  const opened: QueueBackend[] = []
  const redis = (url: string): QueueBackend => {
    const backend = createRedisBackend({ url, clock, onError: () => undefined })
    opened.push(backend)
    return backend
  }
  afterEach(async () => {
    for (const backend of opened.splice(0)) await backend.close()
  })

  it('takes all of a request or nothing, and lets only the guilty hear of a fault', async () => {
    const server = await startRedis()
    const acceptance = acceptanceOf(redis(server.url))
    const deep = JSON.parse('['.repeat(9_000) + ']'.repeat(9_000)) as unknown
    const results = await Promise.allSettled([
      acceptance.accept([{ job: plain, payload: 1 }]),
      acceptance.accept([
        { job: plain, payload: 2 },
        { job: plain, payload: deep },
      ]),
      acceptance.accept([{ job: plain, payload: { n: Number.POSITIVE_INFINITY } }]),
      acceptance.accept([{ job: plain, payload: 3 }]),
    ])
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'rejected', 'fulfilled'])
    expect(results[1]).toMatchObject({ reason: { code: 'INPUT_INVALID' } })
    expect(results[2]).toMatchObject({ reason: { code: 'INPUT_INVALID' } })
    const { rows } = await postgres.query('SELECT payload FROM jobs ORDER BY payload::text')
    expect(rows).toEqual([{ payload: 1 }, { payload: 3 }])
    await acceptance.idle()
  })

  it('goes on while Redis is away, quickly, and leaves the rows to the reconciler', async () => {
    const server = await startRedis()
    const backend = redis(server.url)
    const acceptance = acceptanceOf(backend)
    await backend.ping(1_000)
    await server.kill()
    const before = performance.now()
    for (let index = 0; index < 50; index++) await acceptance.accept([{ job: plain, payload: index }])
    expect(performance.now() - before).toBeLessThan(4_000)
    await acceptance.idle()
    expect(await unqueued()).toBe(50)
    await expect(acceptance.accept([{ job: light, payload: 1 }])).rejects.toMatchObject({
      code: 'QUEUE_UNAVAILABLE',
    })
    await server.restart()
    await eventually(async () => {
      const [accepted] = await acceptance.accept([{ job: plain, payload: 1 }])
      await acceptance.idle()
      const { rows } = await postgres.query('SELECT queued FROM jobs WHERE id = $1', [accepted?.id])
      expect(rows).toEqual([{ queued: true }])
    })
    expect((await backend.counts('default')).waiting).toBe(1)
  })

  it('goes on while Redis does not answer', async () => {
    const server = await startRedis()
    const backend = redis(server.url)
    const acceptance = acceptanceOf(backend)
    await backend.ping(1_000)
    await server.freeze(true)
    const before = performance.now()
    for (let index = 0; index < 20; index++) await acceptance.accept([{ job: plain, payload: index }])
    // Each of them would wait for five seconds.
    expect(performance.now() - before).toBeLessThan(4_000)
    await acceptance.idle()
    await server.freeze(false)
    expect(await unqueued()).toBeGreaterThan(0)
  })

  it('leaves nothing behind of a request whose other half failed', async () => {
    const server = await startRedis()
    const backend = redis(server.url)
    const failing: Ledger = { ...ledger, insert: () => Promise.reject(new Error('Postgres is gone')) }
    const acceptance = acceptanceOf(backend, { ledger: failing })
    const both = acceptance.accept([
      { job: light, payload: 1 },
      { job: plain, payload: 2 },
    ])
    await expect(both).rejects.toThrow('Postgres is gone')
    expect(await backend.counts('default')).toMatchObject({ waiting: 0 })
  })

  it('refuses before anything is done when too much waits', async () => {
    const server = await startRedis()
    const { promise: gate, resolve: open } = Promise.withResolvers<void>()
    const stuck: Ledger = {
      ...ledger,
      insert: async (rows) => {
        await gate
        return ledger.insert(rows)
      },
    }
    const acceptance = acceptanceOf(redis(server.url), { ledger: stuck, maxPending: 10 })
    const waiting = Array.from({ length: 9 }, () => acceptance.accept([{ job: plain, payload: 1 }]))
    const refused = acceptance.accept([
      { job: plain, payload: 1 },
      { job: plain, payload: 1 },
    ])
    await expect(refused).rejects.toMatchObject({ code: 'INTAKE_OVERLOADED' })
    expect(await refused.catch((error: { retryAfterMs: number }) => error.retryAfterMs)).toBeGreaterThan(0)
    expect(acceptance.pending).toBe(9)
    open()
    await Promise.all(waiting)
    await acceptance.idle()
    expect(await total()).toBe(9)
  })
})
