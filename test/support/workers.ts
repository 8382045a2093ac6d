import path from 'node:path'
import { createSystemClock } from '../../src/core/clock.ts'
import { newId } from '../../src/core/ids.ts'
import { createPostgres } from '../../src/platform/postgres/postgres.ts'
import { planStop } from '../../src/platform/processes/stop-plan.ts'
import { createPostgresBackend } from '../../src/platform/queues/backends/postgres.ts'
import { createRedisBackend } from '../../src/platform/queues/backends/redis.ts'
import type { JobView } from '../../src/platform/queues/ledger.ts'
import { createLedger } from '../../src/platform/queues/ledger-postgres.ts'
import { migrateQueues } from '../../src/platform/queues/migrate.ts'
import { testDatabase } from './databases.ts'
import { atEndOfTest, type BatonProcess, eventually, projectRoot, spawnBaton } from './processes.ts'
import { startRedis } from './servers.ts'

/**
 * Longest that a worker may take to be gone, ms. Its plan leaves 800 ms of 25 s for the end of the processes, and a
 * shorter one leaves less in proportion; what that end takes on a busy machine does not become shorter.
 */
export const longestStopMs = (shutdownMs: number): number => planStop(shutdownMs).exitMs + 800

export type EngineName = 'redis' | 'postgres'

/** A site for workers: stores of the test's own, and what a producer does. */
export interface Site {
  databaseUrl: string
  redis: Awaited<ReturnType<typeof startRedis>> | undefined
  /** Starts `baton worker` with the jobs of test/fixtures/jobs, and waits until all children are up: one unless said. */
  startWorker(env?: Record<string, string>): Promise<BatonProcess>
  /** The same without waiting. */
  spawnWorker(env?: Record<string, string>): BatonProcess
  enqueue(name: string, payload: unknown): Promise<string>
  job(id: string): Promise<JobView>
  /** Waits until the job is in the state. */
  jobIs(id: string, state: JobView['state'], timeoutMs?: number): Promise<JobView>
  query<R extends Record<string, unknown>>(sql: string, values?: unknown[]): Promise<R[]>
  nodes(): Promise<NodeRow[]>
  /** Entries of the queue of all jobs. */
  entries(): Promise<number>
}

export interface NodeRow extends Record<string, unknown> {
  id: string
  pid: number
  state: string
  runners: string[]
  children: { runner: string; slot: number; pid: number; state: string; active: number }[]
}

export interface SiteOptions {
  engine: EngineName
  /** Another Postgres than the shared one. */
  databaseUrl?: string
  /** Another Redis than one of the site's own. */
  redisUrl?: string
}

/** Everything of it is released at the end of the test. */
export async function openSite({ engine, ...options }: SiteOptions): Promise<Site> {
  const databaseUrl = options.databaseUrl ?? (await testDatabase()).url
  await migrateQueues(databaseUrl)
  const redis = engine === 'redis' && !options.redisUrl ? await startRedis() : undefined
  const redisUrl = options.redisUrl ?? redis?.url
  const clock = createSystemClock()
  const onError = (): void => undefined
  const postgres = createPostgres({ url: databaseUrl, max: 4, applicationName: 'test', onError })
  const backend = redisUrl
    ? createRedisBackend({ url: redisUrl, clock, onError })
    : createPostgresBackend({ url: databaseUrl, clock, onError })
  const ledger = createLedger({ postgres, clock })
  atEndOfTest(async () => {
    await backend.close()
    await postgres.close()
  })

  const spawnWorker = (env: Record<string, string> = {}): BatonProcess =>
    spawnBaton(['worker'], {
      DATABASE_URL: databaseUrl,
      ...(redisUrl ? { REDIS_URL: redisUrl } : {}),
      JOBS_MODULE: path.join(projectRoot, 'test/fixtures/jobs/index.ts'),
      WORKER_PROCESSES: '1',
      WORKER_CONCURRENCY: '4',
      ...env,
    })
  const query = async <R extends Record<string, unknown>>(
    sql: string,
    values: unknown[] = [],
  ): Promise<R[]> => (await postgres.query<R>(sql, values)).rows
  const job = async (id: string): Promise<JobView> => {
    const view = await ledger.get(id)
    if (!view) throw new Error(`no job ${id}`)
    return view
  }

  return {
    databaseUrl,
    redis,
    query,
    job,
    spawnWorker,
    startWorker: async (env = {}) => {
      const worker = spawnWorker(env)
      const children = Number(env['WORKER_PROCESSES'] ?? 1)
      let seen = 0
      await worker.waitForLine((line) => line.includes('child is up') && ++seen === children, 60_000)
      return worker
    },
    enqueue: async (name, payload) => {
      const id = newId(clock.now())
      const row = {
        id,
        name,
        queue: 'default',
        payload,
        priority: 0,
        maxAttempts: 3,
        delayMs: 0,
        queued: true,
      }
      await ledger.insert([{ ...row, payloadJson: JSON.stringify(payload) }])
      await backend.add('default', [{ id, name, delayMs: 0, priority: 0 }])
      return id
    },
    jobIs: (id, state, timeoutMs = 30_000) =>
      eventually(
        async () => {
          const view = await job(id)
          if (view.state !== state) throw new Error(`job is ${view.state}: ${JSON.stringify(view)}`)
          return view
        },
        { timeoutMs, everyMs: 10 },
      ),
    entries: async () =>
      Object.values(await backend.counts('default')).reduce((sum, count) => sum + count, 0),
    nodes: () => query<NodeRow>('SELECT id, pid, state, runners, children FROM nodes ORDER BY started_at'),
  }
}

/** Waits until a worker has `count` children that take jobs. */
export async function untilUp(site: Site, count: number): Promise<void> {
  await eventually(
    async () => {
      const children = (await site.nodes()).flatMap((node) => node.children)
      const up = children.filter((child) => child.state === 'up').length
      if (up < count) throw new Error(`${up} children are up`)
    },
    { timeoutMs: 30_000 },
  )
}

/** A child of some worker that is the runner of the job. */
export async function childOf(site: Site, jobId: string): Promise<{ pid: number; runner: string }> {
  return eventually(async () => {
    const { runner } = await site.job(jobId)
    const children = (await site.nodes()).flatMap((node) => node.children)
    const child = children.find((each) => each.runner === runner)
    if (!child?.pid) throw new Error(`no child is the runner ${runner}`)
    return { pid: child.pid, runner: child.runner }
  })
}
