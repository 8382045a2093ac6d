import { randomBytes } from 'node:crypto'
import { EventEmitter } from 'node:events'
import type { TSchema } from 'typebox'
import { afterAll, beforeAll, expect, onTestFinished } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { newId } from '../../../src/core/ids.ts'
import { createLog, type Log } from '../../../src/platform/log.ts'
import { createPostgres, type Postgres } from '../../../src/platform/postgres/postgres.ts'
import type { QueueBackend } from '../../../src/platform/queues/backend.ts'
import { createPostgresBackend } from '../../../src/platform/queues/backends/postgres.ts'
import { createRedisBackend } from '../../../src/platform/queues/backends/redis.ts'
import type { Job, JobOptions } from '../../../src/platform/queues/job.ts'
import { defineJob } from '../../../src/platform/queues/job.ts'
import type { JobMetrics } from '../../../src/platform/queues/job-metrics.ts'
import {
  createJobRunner,
  type JobRunner,
  type RunnerLimits,
} from '../../../src/platform/queues/job-runner.ts'
import type { JobState, JobView, Ledger, NewJob } from '../../../src/platform/queues/ledger.ts'
import { createLedger } from '../../../src/platform/queues/ledger-postgres.ts'
import { migrateQueues } from '../../../src/platform/queues/migrate.ts'
import { createRegistry } from '../../../src/platform/queues/registry.ts'
import type { WakeBus } from '../../../src/platform/wake-bus.ts'
import { testDatabase, testRedis } from '../../support/databases.ts'
import { eventually } from '../../support/processes.ts'

export type EngineKind = QueueBackend['engine']

/** Everything around runners, for one engine and one test file. */
export interface Stage {
  readonly kind: EngineKind
  readonly postgres: Postgres
  readonly ledger: Ledger
  readonly backend: QueueBackend
  /** Wakes that reach every runner; `silent` loses them all. */
  readonly bus: WakeBus & { silent: boolean }
  readonly lines: Record<string, unknown>[]
  readonly counted: string[]
  /** A queue that no other test uses. */
  queue(): string
  run<Deps>(jobs: Job<never, Deps>[], options?: RunOptions<Deps>): Promise<TestRunner>
  enqueue(
    job: Pick<Job, 'name' | 'queue' | 'attempts'>,
    payload?: unknown,
    row?: Partial<NewJob>,
  ): Promise<string>
  enqueueVolatile(job: Job, payload?: unknown, id?: string): Promise<string>
  reaches(id: string, ...states: JobState[]): Promise<JobView>
}

export interface RunOptions<Deps> {
  deps?: Deps
  limits?: Partial<RunnerLimits>
  concurrency?: number
  /** Replaces parts of the ledger, to make them fail. */
  ledger?: Partial<Ledger>
  queues?: string[]
}

export interface TestRunner extends JobRunner {
  readonly id: string
  /** As if its process had died: nothing is written any more, its node's heartbeat is gone. */
  die(): Promise<void>
}

/** @param redisUrl of a server of one's own, to take it away */
export function useStage(kind: EngineKind, redisUrl?: () => Promise<string>): () => Stage {
  let stage: (Stage & { close(): Promise<void> }) | undefined
  beforeAll(async () => {
    stage = await createStage(kind, await redisUrl?.())
  })
  afterAll(async () => {
    await stage?.close()
  })
  return () => {
    if (!stage) throw new Error('the stage is not set')
    return stage
  }
}

async function createStage(kind: EngineKind, redisUrl?: string): Promise<Stage & { close(): Promise<void> }> {
  const database = await testDatabase()
  const clock = createSystemClock()
  const postgres = createPostgres({
    url: database.url,
    max: 8,
    applicationName: 'test',
    onError: () => undefined,
  })
  const ledger = createLedger({ postgres, clock })
  const backend = await openBackend(kind, database.url, redisUrl)
  const lines: Record<string, unknown>[] = []
  const log = capture(lines)
  const counted: string[] = []
  const bus = createLocalBus()

  const stage: Stage = {
    kind,
    postgres,
    ledger,
    backend,
    bus,
    lines,
    counted,
    queue: () => `q${randomBytes(4).toString('hex')}`,
    run: async (jobs, options = {}) => {
      const id = `runner-${randomBytes(4).toString('hex')}`
      await postgres.query(
        `INSERT INTO nodes (id, kind, host, pid, version, runners, state, heartbeat_at)
         VALUES ($1, 'worker', 'test', 1, '0', ARRAY[$1], 'up', now() + interval '1 hour')`,
        [id],
      )
      let dead = false
      const mortal = mortify({ ...ledger, ...options.ledger }, () => dead)
      const runner = createJobRunner({
        registry: createRegistry(jobs as Job[]),
        ledger: mortal,
        backend,
        database: postgres,
        deps: options.deps,
        log,
        clock,
        metrics: createCounts(counted),
        wakeBus: bus,
        runner: id,
        concurrency: options.concurrency ?? 5,
        ...(options.queues ? { queues: options.queues } : {}),
        limits: { graceMs: 200, handBackMs: 500, ...options.limits },
      })
      onTestFinished(() => runner.close(2_000))
      await runner.start()
      return {
        ...runner,
        id,
        die: async () => {
          dead = true
          runner.quiet()
          await postgres.query(`UPDATE nodes SET heartbeat_at = 'epoch' WHERE id = $1`, [id])
        },
      }
    },
    enqueue: async (job, payload = {}, row = {}) => {
      const [accepted] = await ledger.insert([
        {
          id: newId(clock.now()),
          name: job.name,
          queue: job.queue,
          payload,
          priority: 0,
          maxAttempts: job.attempts,
          delayMs: 0,
          queued: true,
          ...row,
        },
      ])
      const id = accepted?.id ?? ''
      await backend.add(job.queue, [{ id, name: job.name, delayMs: accepted?.delayMs ?? 0, priority: 0 }])
      return id
    },
    enqueueVolatile: async (job, payload = {}, id = newId(clock.now())) => {
      const { attempts, backoff, name } = job
      await backend.add(job.queue, [
        {
          id,
          name,
          delayMs: 0,
          priority: 0,
          volatile: { payload, attempts, backoff, context: { requestId: 'r1' } },
        },
      ])
      return id
    },
    reaches: (id, ...states) =>
      eventually(
        async () => {
          const view = await ledger.get(id)
          expect(states).toContain(view?.state)
          return view as JobView
        },
        { timeoutMs: 20_000 },
      ),
  }
  const close = async (): Promise<void> => {
    await backend.close()
    await postgres.close()
    await database.drop()
  }
  return { ...stage, close }
}

async function openBackend(kind: EngineKind, url: string, redisUrl?: string): Promise<QueueBackend> {
  const options = { clock: createSystemClock(), onError: () => undefined }
  if (redisUrl) return createRedisBackend({ ...options, url: redisUrl })
  if (kind === 'redis') return createRedisBackend({ ...options, ...(await testRedis()) })
  await migrateQueues(url)
  return createPostgresBackend({ ...options, url, connections: 12 })
}

/** After a death no write reaches the ledger any more: it neither succeeds nor fails. */
function mortify(ledger: Ledger, isDead: () => boolean): Ledger {
  const never = new Promise<never>(() => undefined)
  return Object.fromEntries(
    Object.entries(ledger).map(([name, method]) => [
      name,
      (...args: unknown[]) => (isDead() ? never : (method as (...all: unknown[]) => unknown)(...args)),
    ]),
  ) as unknown as Ledger
}

function createLocalBus(): Stage['bus'] {
  const emitter = new EventEmitter()
  return {
    silent: false,
    async publish(channel, text) {
      if (!this.silent) emitter.emit(channel, text)
    },
    subscribe: async (channel, onText) => {
      emitter.on(channel, onText)
      return { unsubscribe: async () => void emitter.off(channel, onText) }
    },
    onRestored: () => undefined,
    close: async () => undefined,
  }
}

function createCounts(counted: string[]): JobMetrics {
  return {
    started: (job) => void counted.push(`started ${job}`),
    finished: (job, outcome) => void counted.push(`finished ${job} ${outcome}`),
    interrupted: (job, reason) => void counted.push(`interrupted ${job} ${reason}`),
    leftBehind: (job) => void counted.push(`left behind ${job}`),
  }
}

function capture(lines: Record<string, unknown>[]): Log {
  const log = createLog({ level: 'debug', process: 'test' })
  const symbols = Object.getOwnPropertySymbols(log)
  const stream = symbols.find((each) => each.description === 'pino.stream')
  if (!stream) throw new Error('pino has no stream')
  Object.assign(log, { [stream]: { write: (line: string) => void lines.push(JSON.parse(line)) } })
  return log
}

/** A job that nothing else is said of than what the test is about. */
export function jobOf<Deps>(
  queue: string,
  name: string,
  run: JobOptions<TSchema, Deps>['run'],
  options: Partial<JobOptions<TSchema, Deps>> = {},
): Job<never, Deps> {
  const fast = { backoff: { baseMs: 20, maxMs: 20 }, payload: {} as TSchema }
  return defineJob<TSchema, Deps>({ ...fast, ...options, name, queue, run } as JobOptions<
    TSchema,
    Deps
  >) as Job<never, Deps>
}

/** A promise that a test opens. */
export interface Gate {
  readonly opened: Promise<void>
  open(): void
}

export function createGate(): Gate {
  const { promise, resolve } = Promise.withResolvers<void>()
  return { opened: promise, open: resolve }
}
