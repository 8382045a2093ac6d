import { randomUUID } from 'node:crypto'
import { Type } from 'typebox'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { newId } from '../../../src/core/ids.ts'
import type { Service } from '../../../src/core/lifecycle.ts'
import { createPostgres, type Postgres } from '../../../src/platform/postgres/postgres.ts'
import type { Entry, QueueBackend } from '../../../src/platform/queues/backend.ts'
import { createPostgresBackend } from '../../../src/platform/queues/backends/postgres.ts'
import { createRedisBackend } from '../../../src/platform/queues/backends/redis.ts'
import { createEnqueueIn } from '../../../src/platform/queues/enqueue-in.ts'
import { defineJob } from '../../../src/platform/queues/job.ts'
import type { Ledger, NewJob } from '../../../src/platform/queues/ledger.ts'
import { createLedger } from '../../../src/platform/queues/ledger-postgres.ts'
import { createReconciler, type ReconcilerOptions } from '../../../src/platform/queues/reconcile.ts'
import type { Repairs } from '../../../src/platform/queues/reconcile-pass.ts'
import { createRegistry } from '../../../src/platform/queues/registry.ts'
import { createRedis } from '../../../src/platform/redis.ts'
import { testDatabase, testRedis } from '../../support/databases.ts'
import { quickest } from '../../support/measure.ts'
import { eventually } from '../../support/processes.ts'
import { type PrivateServer, startRedis } from '../../support/servers.ts'

const clock = createSystemClock()
const plain = defineJob({
  name: 'plain',
  payload: Type.Object({ n: Type.Number() }),
  run: async () => undefined,
})
let url: string
let postgres: Postgres
let ledger: Ledger
let closers: (() => Promise<unknown>)[] = []

beforeEach(async () => {
  url = (await testDatabase()).url
  postgres = createPostgres({ url, max: 8, applicationName: 'test', onError: () => undefined })
  ledger = createLedger({ postgres, clock })
  closers = [() => postgres.close()]
})
afterEach(async () => {
  for (const close of closers.toReversed()) await close()
})

const openRedis = async (server?: PrivateServer): Promise<QueueBackend> => {
  const shared = server ? { url: server.url, prefix: 'baton' } : await testRedis()
  const backend = createRedisBackend({ ...shared, clock, onError: () => undefined })
  closers.push(() => backend.close())
  return backend
}
const openPostgres = async (): Promise<QueueBackend> => {
  const backend = createPostgresBackend({ url, clock, connections: 8, onError: () => undefined })
  closers.push(() => backend.close())
  return backend
}
/** Of a node whose clock is an hour ahead. Those who stop it in the test are not those who read it. */
const fast = { ...clock, now: () => clock.now() + 3_600_000 }
const putOffBy = async (backend: QueueBackend, job: NewJob, delayMs: number): Promise<void> => {
  await ledger.insert([job])
  await backend.add('default', [{ id: job.id, name: job.name, delayMs, priority: job.priority }])
}
const reconcile = async (
  backend: QueueBackend,
  more: Partial<ReconcilerOptions> = {},
): Promise<Service & { repairs: Repairs }> => {
  const repairs: Repairs = { unqueued: 0, forgotten: 0, overdue: 0, released: 0, pruned: 0 }
  const reconciler = createReconciler({
    postgres,
    ledger,
    backend,
    queues: ['default'],
    clock,
    retention: { finishedMs: 3_600_000, failedMs: 3_600_000 },
    onError: () => undefined,
    onRepaired: (found) => {
      for (const key of Object.keys(found) as (keyof Repairs)[]) repairs[key] += found[key]
    },
    everyMs: 50,
    ...more,
  })
  closers.push(() => reconciler.stop())
  await reconciler.start()
  return { ...reconciler, repairs }
}
const newJob = (more: Partial<NewJob> = {}): NewJob => ({
  id: newId(clock.now()),
  name: 'plain',
  queue: 'default',
  payload: { n: 1 },
  priority: 0,
  maxAttempts: 3,
  delayMs: 0,
  queued: true,
  ...more,
})
const live = (...runners: string[]) =>
  postgres.query(
    `INSERT INTO nodes (id, kind, host, pid, version, state, runners, heartbeat_at)
     VALUES ('n', 'worker', 'h', 1, '1', 'ready', $1, now() + interval '1 hour')`,
    [runners],
  )
/** As after a pass: nothing was forgotten. */
const agreeOnEpoch = async (backend: QueueBackend): Promise<void> => {
  await postgres.query(`INSERT INTO queue_epochs (queue, epoch) VALUES ('default', $1)`, [
    await backend.mark('default'),
  ])
}
const waiting = async (backend: QueueBackend): Promise<number> => (await backend.counts('default')).waiting
/** Counts what is added, and passes it on. */
const counting = (backend: QueueBackend): QueueBackend & { added: Entry[] } => {
  const added: Entry[] = []
  return {
    ...backend,
    added,
    add: async (queue, entries) => {
      added.push(...entries)
      await backend.add(queue, entries)
    },
    mend: async (queue, entries) => {
      added.push(...entries)
      await backend.mend(queue, entries)
    },
  }
}

describe.each([
  ['Redis', () => openRedis()],
  ['Postgres', () => openPostgres()],
] as const)('the reconciler on %s', (_engine, open) => {
  it('adds rows that nobody has handed to the queue, once', async () => {
    const backend = counting(await open())
    await ledger.insert([newJob({ queued: false }), newJob({ queued: false, delayMs: 60_000 }), newJob()])
    await agreeOnEpoch(backend)
    const { repairs } = await reconcile(backend)
    await eventually(() => expect(repairs.unqueued).toBe(2))
    await clock.sleep(200)
    expect(backend.added).toHaveLength(2)
    expect(await backend.counts('default')).toMatchObject({ waiting: 1, delayed: 1 })
    const { rows } = await postgres.query('SELECT count(*)::int AS n FROM jobs WHERE NOT queued')
    expect(rows).toEqual([{ n: 0 }])
  })

  it('adds what is overdue, and leaves alone what runs', async () => {
    const backend = await open()
    await live('alive')
    const [lost, held, young] = [newJob(), newJob(), newJob()]
    await ledger.insert([lost, held, young])
    await postgres.query(`UPDATE jobs SET run_at = now() - interval '20 seconds' WHERE id = ANY($1)`, [
      [lost.id, held.id],
    ])
    await ledger.start(held.id, { token: randomUUID(), runner: 'alive' })
    await agreeOnEpoch(backend)
    await reconcile(backend)
    await eventually(async () => expect(await waiting(backend)).toBe(1))
    await clock.sleep(200)
    expect(await backend.remove('default', lost.id)).toBe(true)
    expect(await backend.remove('default', young.id)).toBe(false)
  })

  it('brings forward what was put off for later, cancelled, and then retried by hand', async () => {
    const backend = await open()
    await agreeOnEpoch(backend)
    const jobs = [newJob({ delayMs: 3_600_000 }), newJob({ delayMs: 3_600_000, priority: 3 })]
    for (const job of jobs) {
      await putOffBy(backend, job, 3_600_000)
      expect(await ledger.cancel(job.id)).toBe('cancelled')
    }
    await reconcile(backend)
    for (const job of jobs) expect(await ledger.retry(job.id)).toBe('retried')
    await eventually(async () =>
      expect(await backend.counts('default')).toMatchObject({ waiting: 2, delayed: 0 }),
    )
  })

  it('brings forward the entry of a due row that a wrong clock has put off, and no other', async () => {
    const backend = await open()
    await agreeOnEpoch(backend)
    const [due, later, soon] = [newJob(), newJob({ delayMs: 3_600_000 }), newJob()]
    await putOffBy(backend, due, 3_600_000)
    await putOffBy(backend, later, 3_600_000)
    // As a delivery leaves it that found its row held, or its name unknown.
    await putOffBy(backend, soon, 5_000)
    await postgres.query(`UPDATE jobs SET run_at = now() - interval '20 seconds' WHERE id = ANY($1)`, [
      [due.id, soon.id],
    ])
    await reconcile(backend)
    await eventually(async () => expect(await waiting(backend)).toBe(1))
    await clock.sleep(200)
    expect(await backend.counts('default')).toMatchObject({ waiting: 1, delayed: 2 })
    expect(await backend.remove('default', due.id)).toBe(true)
  })

  it('frees what a dead runner held, counts the crash once, and adds it', async () => {
    const backend = await open()
    await agreeOnEpoch(backend)
    const jobs = [newJob(), newJob()]
    await ledger.insert(jobs)
    for (const { id } of jobs) await ledger.start(id, { token: randomUUID(), runner: 'dead' })
    await postgres.query(`UPDATE jobs SET run_at = now() - interval '20 seconds'`)
    await postgres.query('UPDATE jobs SET crashes = 4 WHERE id = $1', [jobs[0]?.id])
    const [one, two] = [await reconcile(backend), await reconcile(backend)]
    await eventually(() => expect(one.repairs.released + two.repairs.released).toBe(2))
    await eventually(async () => expect(await waiting(backend)).toBe(1))
    expect(await ledger.get(jobs[0]?.id ?? '')).toMatchObject({
      state: 'failed',
      error: { code: 'JOB_POISONOUS' },
    })
    expect(await ledger.get(jobs[1]?.id ?? '')).toMatchObject({ state: 'waiting', interruptions: 1 })
  })

  it('lets one of many work, and the next as soon as that one is gone', async () => {
    const backend = counting(await open())
    await agreeOnEpoch(backend)
    const all = await Promise.all(Array.from({ length: 4 }, () => reconcile(backend)))
    for (let round = 1; round <= 4; round++) {
      await ledger.insert([newJob({ queued: false })])
      const leader = await eventually(() => {
        const working = all.filter(({ repairs }) => repairs.unqueued > 0)
        expect(working).toHaveLength(round)
        return working.find(({ repairs }) => repairs.released === 0)
      })
      expect(leader?.repairs.unqueued).toBe(1)
      // Marks it as gone.
      if (leader) leader.repairs.released = 1
      await leader?.stop()
    }
    expect(new Set(backend.added.map(({ id }) => id)).size).toBe(4)
  })

  it('runs a job within milliseconds of the commit that made it, and never one that was rolled back', async () => {
    const backend = await open()
    await agreeOnEpoch(backend)
    const seen: string[] = []
    const consumer = backend.consume({
      queue: 'default',
      runner: 'r',
      concurrency: 5,
      process: async ({ id }) => (seen.push(id), { kind: 'finished' }),
      onLost: () => undefined,
      onError: () => undefined,
    })
    closers.push(() => consumer.close(1_000))
    await consumer.start()
    await reconcile(backend, { everyMs: 60_000 })
    const enqueueIn = createEnqueueIn({ ledger, registry: createRegistry([plain]), clock })
    const warm = await postgres.transaction((client) => enqueueIn(client, plain, { n: 0 }))
    await eventually(() => expect(seen).toContain(warm.id))

    const rolledBack = postgres.transaction(async (client) => {
      await enqueueIn(client, plain, { n: 1 })
      throw new Error('no')
    })
    await expect(rolledBack).rejects.toThrow('no')
    const ids = [warm.id]
    const tookMs = await quickest(300, async () => {
      const { id } = await postgres.transaction((client) => enqueueIn(client, plain, { n: 2 }))
      const before = performance.now()
      ids.push(id)
      await eventually(() => expect(seen).toContain(id), { everyMs: 2 })
      return performance.now() - before
    })
    expect(tookMs).toBeLessThan(300)
    expect(seen).toEqual(ids)
    await expect(
      postgres.transaction((client) => enqueueIn(client, plain, { n: 'x' } as never)),
    ).rejects.toMatchObject({ code: 'INPUT_INVALID' })
  })

  it('prunes rows and idempotency keys that are old enough', async () => {
    const backend = await open()
    const job = newJob()
    await ledger.insert([job])
    await ledger.cancel(job.id)
    await postgres.query(`UPDATE jobs SET finished_at = now() - interval '2 hours'`)
    await postgres.query(`INSERT INTO idempotency_keys (owner, key, request_sha256, status, response, created_at)
      VALUES ('o', 'old', '', 202, '{}', now() - interval '25 hours'), ('o', 'new', '', 202, '{}', now())`)
    const { repairs } = await reconcile(backend)
    await eventually(() => expect(repairs.pruned).toBe(1))
    await eventually(async () => {
      expect((await postgres.query('SELECT key FROM idempotency_keys')).rows).toEqual([{ key: 'new' }])
    })
  })
})

describe('the reconciler', () => {
  it('adds again what Redis still has but shows to nobody, since it threw the list away', async () => {
    const server = await startRedis()
    const backend = await openRedis(server)
    await agreeOnEpoch(backend)
    const jobs = Array.from({ length: 3 }, () => newJob())
    await ledger.insert(jobs)
    await backend.add('default', jobs)
    const client = createRedis(server.url, 'consumer')
    expect(await client.del('{baton:default}:default:wait')).toBe(1)
    client.disconnect()
    expect(await waiting(backend)).toBe(0)
    await postgres.query(`UPDATE jobs SET run_at = now() - interval '20 seconds'`)
    await reconcile(backend)
    await eventually(async () => expect(await waiting(backend)).toBe(3))
    await clock.sleep(200)
    expect(await waiting(backend)).toBe(3)
  })

  it('takes from a dead node on Postgres what its fast clock has locked for an hour', async () => {
    const ahead = createPostgresBackend({ url, clock: fast, connections: 8, onError: () => undefined })
    closers.push(() => ahead.close())
    const job = newJob()
    await putOffBy(ahead, job, 0)
    await agreeOnEpoch(ahead)
    await postgres.query(
      `UPDATE bullmq.job SET state = 'active', lock_token = 't',
         locked_until_ms = (extract(epoch FROM now()) * 1000)::bigint + 3600000 WHERE id = $1`,
      [job.id],
    )
    // Its sweeps, of which the last counts for everybody, lie an hour ahead too.
    const sweeper = ahead.consume({
      queue: 'default',
      runner: 'fast',
      concurrency: 1,
      process: async () => ({ kind: 'finished' }),
      onLost: () => undefined,
      onError: () => undefined,
    })
    await sweeper.start()
    await clock.sleep(200)
    await sweeper.close(1_000)
    await postgres.query(`UPDATE jobs SET run_at = now() - interval '20 seconds'`)
    const backend = await openPostgres()
    await reconcile(backend)
    const seen: string[] = []
    const consumer = backend.consume({
      queue: 'default',
      runner: 'r',
      concurrency: 5,
      process: async ({ id }) => (seen.push(id), { kind: 'finished' }),
      onLost: () => undefined,
      onError: () => undefined,
    })
    closers.push(() => consumer.close(1_000))
    await consumer.start()
    await eventually(() => expect(seen).toEqual([job.id]), { timeoutMs: 30_000 })
  })

  it('adds all unfinished rows again after Redis was emptied, except those that a live run holds', async () => {
    const server = await startRedis()
    const backend = await openRedis(server)
    await live('alive')
    const jobs = Array.from({ length: 1_200 }, () => newJob())
    const later = newJob({ delayMs: 600_000 })
    const [held, finished] = [newJob(), newJob()]
    await ledger.insert([...jobs, later, held, finished])
    await ledger.start(held.id, { token: randomUUID(), runner: 'alive' })
    await ledger.cancel(finished.id)
    const { repairs } = await reconcile(backend)
    await eventually(async () => {
      expect(await backend.counts('default')).toMatchObject({ waiting: 1_200, delayed: 1 })
    })
    const epochs = async (): Promise<string | undefined> =>
      (await postgres.query<{ epoch: string }>('SELECT epoch FROM queue_epochs')).rows[0]?.epoch
    const first = await eventually(async () => {
      const epoch = await epochs()
      expect(epoch).toBeDefined()
      return epoch
    })

    const client = createRedis(server.url, 'consumer')
    await client.flushall()
    client.disconnect()
    await eventually(async () => {
      expect(await backend.counts('default')).toMatchObject({ waiting: 1_200, delayed: 1 })
    })
    await eventually(async () => expect(await epochs()).not.toBe(first))
    await eventually(() => expect(repairs.forgotten).toBe(2 * 1_201))
    expect(await backend.remove('default', held.id)).toBe(false)
    expect(await backend.remove('default', finished.id)).toBe(false)
  })

  it('notices a restart of Redis without persistence', async () => {
    const server = await startRedis()
    const backend = await openRedis(server)
    await ledger.insert([newJob(), newJob()])
    await reconcile(backend)
    await eventually(async () => expect(await waiting(backend)).toBe(2))
    await server.kill()
    await server.restart()
    await eventually(async () => expect(await waiting(backend)).toBe(2))
  })

  it('is not stopped by Redis being away: it prunes, and adds when it is back', async () => {
    const server = await startRedis()
    const backend = await openRedis(server)
    await backend.ping(1_000)
    await server.kill()
    const codes = new Set<string>()
    await reconcile(backend, { onError: (error) => void codes.add((error as { code: string }).code) })
    await ledger.insert([newJob({ queued: false })])
    await eventually(() => expect([...codes]).toEqual(['QUEUE_UNAVAILABLE']))
    await server.restart()
    await eventually(async () => expect(await waiting(backend)).toBe(1))
  })

  it('does not add a long line again and again', async () => {
    const server = await startRedis()
    const backend = counting(await openRedis(server))
    await ledger.insert(Array.from({ length: 1_300 }, () => newJob()))
    await postgres.query(`UPDATE jobs SET run_at = now() - interval '1 minute'`)
    await agreeOnEpoch(backend)
    await reconcile(backend, { everyMs: 20 })
    await eventually(() => expect(backend.added.length).toBeGreaterThanOrEqual(1_300))
    expect(new Set(backend.added.slice(0, 1_300).map(({ id }) => id)).size).toBe(1_300)
  })

  it('takes over when the session of the leader is cut, and goes on', async () => {
    const backend = counting(await openRedis())
    const { repairs } = await reconcile(backend)
    await ledger.insert([newJob({ queued: false })])
    await eventually(() => expect(repairs.unqueued).toBe(1))
    await postgres.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE application_name = 'baton reconciler' AND datname = current_database()`,
    )
    await ledger.insert([newJob({ queued: false })])
    await eventually(() => expect(repairs.unqueued).toBe(2))
  })

  it('stops without having started, and twice', async () => {
    const backend = await openRedis()
    const reconciler = createReconciler({
      postgres,
      ledger,
      backend,
      queues: [],
      clock,
      retention: { finishedMs: 1, failedMs: 1 },
      onError: () => undefined,
    })
    await reconciler.stop()
    await reconciler.start()
    await expect(Promise.all([reconciler.stop(), reconciler.stop()])).resolves.toBeDefined()
  })
})
