import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { release } from '../../src/cli/release.ts'
import { createSystemClock } from '../../src/core/clock.ts'
import { createPostgres, type Postgres } from '../../src/platform/postgres/postgres.ts'
import type { QueueBackend } from '../../src/platform/queues/backend.ts'
import { createPostgresBackend } from '../../src/platform/queues/backends/postgres.ts'
import { createRedisBackend } from '../../src/platform/queues/backends/redis.ts'
import { type BatonProcess, eventually, freePort, spawnBaton } from '../../test/support/processes.ts'
import { type PrivateServer, startPostgres, startRedis } from '../../test/support/servers.ts'

export type EngineName = 'redis' | 'postgres'

/** One of Baton's processes; when it is ended it is started again, as a platform would. */
export interface Unit {
  readonly name: string
  process: BatonProcess
  /** Where it answers; of a worker undefined. */
  address: string | undefined
  /** Why we end it just now. An end without a reason is a breach. */
  ending: 'killed' | 'stopped' | undefined
  /** Starts it anew, after its end. */
  revive(): void
}

export interface Site {
  engine: EngineName
  postgres: PrivateServer
  redis: PrivateServer | undefined
  /** Of the checker: none of what is being tested uses it. */
  database: Postgres
  backend: QueueBackend
  webs: Unit[]
  workers: Unit[]
  /** How often Postgres was ended without a moment to write: a start that was not on the disk yet is forgotten. */
  postgresCrashes: number
  /** What befell a process without our doing. */
  breaches: string[]
  /** Children that ended before they could take a job, or were too slow to: none of the faults is a reason for it. */
  neverReady: string[]
  runs(): Map<string, number>
  stop(): Promise<void>
}

export const key = 'chaos-key-0123456789'
const shutdownMs = 10_000
export const childrenOfWorker = 2

/** Two web nodes, two masters of two children, and stores of their own. */
export async function openSite(engine: EngineName, seed: number): Promise<Site> {
  const folder = mkdtempSync(path.join(tmpdir(), 'baton-chaos-'))
  const runsFile = path.join(folder, 'runs')
  writeFileSync(runsFile, '')
  const postgres = await startPostgres({ fsync: 'on', max_connections: '120' })
  const redis = engine === 'redis' ? await startRedis({ appendOnly: seed % 2 === 0 }) : undefined
  await release(postgres.url)
  const clock = createSystemClock()
  const database = createPostgres({
    url: postgres.url,
    max: 2,
    applicationName: 'chaos',
    onError: ignore,
    queryTimeoutMs: 20_000,
  })
  await database.query('CREATE TABLE effects (job uuid NOT NULL)')
  await database.query('CREATE TABLE steps (job uuid NOT NULL, step integer NOT NULL)')
  const environment = {
    DATABASE_URL: postgres.url,
    ...(redis ? { REDIS_URL: redis.url } : {}),
    HOST: '127.0.0.1',
    BATON_SECRET: 'chaos-secret-0123456789',
    BATON_API_KEYS: `operator:${key}`,
    JOBS_MODULE: path.join(import.meta.dirname, 'jobs.ts'),
    BODY_STORES: `file:${folder}/a,file:${folder}/b`,
    WORKER_PROCESSES: String(childrenOfWorker),
    WORKER_CONCURRENCY: '8',
    DATABASE_CONNECTIONS: '8',
    SHUTDOWN_MS: String(shutdownMs),
    LOG_LEVEL: 'warn',
    CHAOS_RUNS: runsFile,
  }
  const breaches: string[] = []
  const neverReady: string[] = []
  const units: Unit[] = []
  for (const name of ['web-1', 'web-2', 'worker-1', 'worker-2']) {
    const port = name.startsWith('web') ? String(await freePort()) : undefined
    const own = { ...environment, ...(port ? { PORT: port } : {}) }
    units.push(openUnit(name, own, { breaches, neverReady }))
  }
  const webs = units.filter((unit) => unit.address !== undefined)
  const stop = async (): Promise<void> => {
    for (const unit of units) {
      unit.ending ??= 'killed'
      await unit.process.kill()
    }
    await database.close().catch(ignore)
    await redis?.stop()
    await postgres.stop()
    rmSync(folder, { recursive: true, force: true })
  }
  try {
    for (const { address } of webs) await eventually(() => assertReady(address), { timeoutMs: 30_000 })
  } catch (error) {
    const said = units.flatMap((unit) => unit.process.lines.slice(-3)).join('\n')
    await stop()
    throw new Error(`the site did not come up:\n${breaches.join('\n')}\n${said}`, { cause: error })
  }
  return {
    engine,
    postgres,
    redis,
    database,
    backend: redis
      ? createRedisBackend({ url: redis.url, clock, onError: ignore })
      : createPostgresBackend({ url: postgres.url, clock, onError: ignore }),
    webs,
    workers: units.filter((unit) => unit.address === undefined),
    postgresCrashes: 0,
    breaches,
    neverReady,
    runs: () => countLines(readFileSync(runsFile, 'utf8')),
    stop,
  }
}

const ignore = (): void => undefined

async function assertReady(address: string | undefined): Promise<void> {
  const response = await fetch(`${address}/readyz`)
  if (response.status !== 200) throw new Error(`${address} is not ready: ${response.status}`)
}

/** What a master says of a child that never took a job. */
const unready = /did not become ready in time|child cannot start|child cannot be started/

function openUnit(
  name: string,
  environment: Record<string, string>,
  { breaches, neverReady }: Pick<Site, 'breaches' | 'neverReady'>,
): Unit {
  const verb = name.split('-')[0] ?? ''
  const start = (): BatonProcess => {
    const started = spawnBaton([verb], environment)
    const note = (line: string): boolean => {
      if (unready.test(line)) neverReady.push(`${name}: ${line}`)
      return false
    }
    // Never matches, so it sees every line; it ends with the process.
    void started.waitForLine(note, 2 ** 31 - 1).catch(ignore)
    void started.exit.then(({ code, signal }) => {
      if (unit.process !== started || unit.ending === 'killed') return
      const last = started.lines.slice(-5).join('\n')
      if (unit.ending === undefined) breaches.push(`${name} ended by itself with ${signal ?? code}:\n${last}`)
      else if (code !== 0 && code !== 75) breaches.push(`${name} stopped with ${signal ?? code}:\n${last}`)
    })
    return started
  }
  const unit: Unit = {
    name,
    process: undefined as never,
    address: environment['PORT'] ? `http://127.0.0.1:${environment['PORT']}` : undefined,
    ending: undefined,
    revive: () => {
      unit.process = start()
      unit.ending = undefined
    },
  }
  unit.revive()
  return unit
}

function countLines(text: string): Map<string, number> {
  const counts = new Map<string, number>()
  for (const line of text.split('\n')) if (line) counts.set(line, (counts.get(line) ?? 0) + 1)
  return counts
}

/** Stops it as a platform does. A process that is still there after its deadline is a breach. */
export async function stopUnit(site: Site, unit: Unit): Promise<void> {
  unit.ending = 'stopped'
  unit.process.signal('SIGTERM')
  const late = new Promise<'late'>((resolve) => setTimeout(() => resolve('late'), shutdownMs + 2_000).unref())
  if ((await Promise.race([unit.process.exit, late])) === 'late') {
    site.breaches.push(`${unit.name} was not gone ${shutdownMs + 2_000} ms after TERM`)
    await unit.process.kill()
  }
}
