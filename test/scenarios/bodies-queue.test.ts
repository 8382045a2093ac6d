import { createHash, randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { Type } from 'typebox'
import { expect, it } from 'vitest'
import { createSystemClock } from '../../src/core/clock.ts'
import { codeOf } from '../../src/core/errors.ts'
import { type Bodies, createBodies } from '../../src/domain/bodies/bodies.ts'
import { createDirectoryStore } from '../../src/domain/bodies/stores/directory.ts'
import { createLog } from '../../src/platform/log.ts'
import { migrate } from '../../src/platform/postgres/migrate.ts'
import { createPostgres, type Postgres } from '../../src/platform/postgres/postgres.ts'
import { createAcceptance } from '../../src/platform/queues/accept.ts'
import { createRedisBackend } from '../../src/platform/queues/backends/redis.ts'
import { defineJob, done, type Job } from '../../src/platform/queues/job.ts'
import { createJobRunner } from '../../src/platform/queues/job-runner.ts'
import { createLedger } from '../../src/platform/queues/ledger-postgres.ts'
import { createRegistry } from '../../src/platform/queues/registry.ts'
import { testRedis } from '../support/databases.ts'
import { eventually } from '../support/processes.ts'
import { startPostgres } from '../support/servers.ts'

const clock = createSystemClock()
const log = createLog({ level: 'silent', process: 'test' })
const none = (): undefined => undefined
const processes = 4
/** Together 200 jobs at once. */
const jobsEach = 50
/** Together 40 connections wanted, and 10 to be had. */
const poolEach = 10
const squatted = 30
/** So many jobs wait at any time. */
const backlog = 1_500

interface Deps {
  bodies: Bodies
  postgres: Postgres
}

/** Keeps a body, reads it back, and takes its time in Postgres. It has one attempt: a failure would show. */
const keep = defineJob({
  name: 'keep',
  payload: Type.Object({ n: Type.Integer() }),
  attempts: 1,
  backoff: { baseMs: 200, maxMs: 400 },
  async run({ n }, { bodies, postgres }: Deps) {
    const bytes = Buffer.concat([Buffer.from(`${n} `), randomBytes(500)])
    const source = (async function* () {
      yield bytes
    })()
    const { id } = await bodies.put(source)
    await postgres.query('SELECT pg_sleep(0.03)')
    const got = Buffer.concat((await (await bodies.get(id)).stream.toArray()) as Buffer[])
    const right = createHash('sha256').update(got).digest('hex') === id && got.equals(bytes)
    return done(right ? 'right' : 'WRONG BYTES')
  },
})

it('with 10 connections for 200 jobs at once the queue becomes slow, no job fails, and it is quick again soon after', async () => {
  const server = await startPostgres({ max_connections: String(squatted + 10) })
  await migrate(server.url)
  const folder = await mkdtemp(join(tmpdir(), 'baton-bodies-'))
  const redis = await testRedis()
  const outcomes = new Map<string, number>()
  let completed = 0
  const metrics = {
    started: none,
    interrupted: none,
    leftBehind: none,
    finished: (_job: string, outcome: string) => {
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
      if (outcome === 'completed') completed++
    },
  }
  const sites = Array.from({ length: processes }, (_each, n) => {
    const postgres = createPostgres({
      url: server.url,
      max: poolEach,
      applicationName: 'crowd',
      maxWaitMs: 1_000,
      onError: none,
    })
    const backend = createRedisBackend({ ...redis, clock, onError: none })
    const ledger = createLedger({ postgres, clock })
    const stores = ['a', 'b'].map((name) => createDirectoryStore({ root: join(folder, name), clock }))
    const bodies = createBodies({ stores, postgres, clock, log })
    const runner = createJobRunner({
      registry: createRegistry([keep as unknown as Job<never, Deps>]),
      ledger,
      backend,
      database: postgres,
      deps: { bodies, postgres },
      log,
      clock,
      metrics,
      wakeBus: {
        publish: async () => undefined,
        subscribe: async () => ({ unsubscribe: async () => undefined }),
        onRestored: none,
        close: async () => undefined,
      },
      runner: `runner-${n}`,
      concurrency: jobsEach,
    })
    return { postgres, backend, ledger, bodies, runner }
  })
  const [{ postgres, backend, ledger }] = sites as [(typeof sites)[number]]
  await postgres.query(
    `INSERT INTO nodes (id, kind, host, pid, version, runners, state, heartbeat_at)
     VALUES ('all', 'worker', 'test', 1, '0', $1, 'up', now() + interval '1 hour')`,
    [sites.map((_site, n) => `runner-${n}`)],
  )
  const acceptance = createAcceptance({ postgres, ledger, backend, clock, onError: none })
  const job = keep as unknown as Job
  let total = 0
  let refused = 0
  let busy = true
  const feed = async (): Promise<void> => {
    while (busy) {
      const jobs = Array.from({ length: Math.max(0, backlog - (total - completed)) }, (_each, n) => ({
        job,
        payload: { n: total + n },
      }))
      try {
        await acceptance.accept(jobs)
        total += jobs.length
      } catch (error) {
        if (codeOf(error) !== 'DATABASE_OVERLOADED') throw error
        refused++
      }
      await clock.sleep(50)
    }
  }
  const squatters = await Promise.all(
    Array.from({ length: squatted }, async () => {
      const squatter = new pg.Client(server.url)
      await squatter.connect()
      return squatter
    }),
  )
  const perSecond = async (seconds: number): Promise<number> => {
    const before = completed
    await clock.sleep(seconds * 1_000)
    return (completed - before) / seconds
  }

  const feeding = feed()
  await Promise.all(sites.map(({ runner }) => runner.start()))
  const limited = await perSecond(5)
  const slowed = outcomes.get('snoozed') ?? 0
  await Promise.all(squatters.map((squatter) => squatter.end()))
  await clock.sleep(2_000)
  const after = await perSecond(3)
  busy = false
  await feeding
  await acceptance.idle()
  await eventually(() => expect(completed).toBe(total), { timeoutMs: 90_000, everyMs: 100 })

  const { rows } = await postgres.query<{ outcome: string; attempts: number; result: string; n: number }>(
    `SELECT outcome, attempts, result #>> '{}' AS result, count(*)::int AS n FROM jobs GROUP BY 1, 2, 3`,
  )
  console.log(JSON.stringify({ limited, after, slowed, refused, outcomes: Object.fromEntries(outcomes) }))
  // Each of them completed in its only attempt, whatever it met before.
  expect(rows).toEqual([{ outcome: 'completed', attempts: 1, result: 'right', n: total }])
  expect(Object.fromEntries(outcomes)).toEqual({ completed: total, snoozed: expect.any(Number) })
  // The limit was felt, and it was the queue that gave way.
  expect(slowed).toBeGreaterThan(0)
  expect(limited).toBeGreaterThan(0)
  expect(after).toBeGreaterThan(limited)

  for (const site of sites) {
    await site.runner.close(5_000)
    await site.backend.close()
    await site.bodies.close()
    await site.postgres.close()
  }
  await rm(folder, { recursive: true })
}, 180_000)
