import { randomUUID } from 'node:crypto'
import path from 'node:path'
import { expect, test } from 'vitest'
import { release } from '../../src/cli/release.ts'
import { createPostgres, type Postgres } from '../../src/platform/postgres/postgres.ts'
import { createRedis } from '../../src/platform/redis.ts'
import { type BatonProcess, eventually, freePort, projectRoot, spawnBaton } from '../support/processes.ts'
import { type PrivateServer, startPostgres, startRedis } from '../support/servers.ts'

const total = 10_000
const batch = 100
const key = 'storm-key-0123456789'

interface Storm {
  postgresServer: PrivateServer
  redis: PrivateServer | undefined
  postgres: Postgres
  address: string
  environment: Record<string, string>
  worker: BatonProcess
  accepted: string[]
}

/** What befalls the system once so many jobs have been completed. */
type Fault = [completed: number, name: string, strike: (storm: Storm) => Promise<void>]

const faults: Fault[] = [
  [300, 'a child is killed', killChild],
  [1_200, 'a child is killed', killChild],
  [2_000, 'the worker is stopped and restarted', restartWorker],
  [3_000, 'a child is killed', killChild],
  [4_000, 'Redis is emptied', async ({ redis }) => redis && (await emptyRedis(redis))],
  [5_000, 'a child is killed', killChild],
  [6_000, 'the worker is stopped and restarted', restartWorker],
  [7_000, 'Redis is restarted', async ({ redis }) => redis?.restart()],
  [8_000, 'Postgres is restarted', ({ postgresServer }) => postgresServer.restart()],
  [8_800, 'a child is killed', killChild],
]

test.each(['redis', 'postgres'] as const)(
  '10,000 durable jobs on %s: every accepted one runs and each effect happens once, whatever is killed',
  async (engine) => {
    const storm = await begin(engine)
    const sending = send(storm)
    for (const [at, , strike] of faults) {
      await eventually(async () => expect(await completed(storm)).toBeGreaterThanOrEqual(at), {
        timeoutMs: 60_000,
        everyMs: 25,
      })
      await strike(storm)
    }
    await sending
    expect(storm.accepted).toHaveLength(total)
    await eventually(async () => expect(await completed(storm)).toBe(total), {
      timeoutMs: 90_000,
      everyMs: 200,
    })
    const { rows } = await storm.postgres.query(
      'SELECT count(*)::int AS effects, count(DISTINCT n)::int AS distinct FROM effects',
    )
    expect(rows[0]).toEqual({ effects: total, distinct: total })
    await storm.postgres.close()
  },
  300_000,
)

async function begin(engine: 'redis' | 'postgres'): Promise<Storm> {
  const postgresServer = await startPostgres({ fsync: 'on' })
  const redis = engine === 'redis' ? await startRedis() : undefined
  await release(postgresServer.url)
  const onError = (): void => undefined
  const postgres = createPostgres({ url: postgresServer.url, max: 2, applicationName: 'storm', onError })
  await postgres.query('CREATE TABLE effects (n integer NOT NULL)')
  const port = await freePort()
  const environment = {
    DATABASE_URL: postgresServer.url,
    ...(redis ? { REDIS_URL: redis.url } : {}),
    PORT: String(port),
    HOST: '127.0.0.1',
    BATON_SECRET: 'storm-secret-0123456789',
    BATON_API_KEYS: `producer:${key}`,
    JOBS_MODULE: path.join(projectRoot, 'test/fixtures/jobs/storm.ts'),
    WORKER_PROCESSES: '2',
    SHUTDOWN_MS: '10000',
    LOG_LEVEL: 'warn',
  }
  spawnBaton(['web'], environment)
  const worker = spawnBaton(['worker'], environment)
  const address = `http://127.0.0.1:${port}`
  await eventually(async () => expect((await fetch(`${address}/readyz`)).status).toBe(200), {
    timeoutMs: 30_000,
  })
  return { postgresServer, redis, postgres, address, environment, worker, accepted: [] }
}

/** As a careful client does it: what was not answered is sent again with the same Idempotency-Key. */
async function send(storm: Storm): Promise<void> {
  for (let from = 0; from < total; from += batch) {
    const body = JSON.stringify(
      Array.from({ length: batch }, (_, index) => ({ name: 'effect', payload: { n: from + index } })),
    )
    const idempotencyKey = randomUUID()
    await eventually(async () => storm.accepted.push(...(await post(storm, body, idempotencyKey))), {
      timeoutMs: 30_000,
      everyMs: 200,
    })
  }
}

async function post(storm: Storm, body: string, idempotencyKey: string): Promise<string[]> {
  const response = await fetch(`${storm.address}/v1/jobs`, {
    method: 'POST',
    body,
    headers: {
      authorization: `Bearer ${key}`,
      'content-type': 'application/json',
      'idempotency-key': idempotencyKey,
    },
  })
  if (response.status !== 202) throw new Error(`${response.status}: ${await response.text()}`)
  const { jobs } = (await response.json()) as { jobs: { id: string }[] }
  return jobs.map((job) => job.id)
}

async function completed(storm: Storm): Promise<number> {
  const { rows } = await storm.postgres.query<{ count: number }>(
    `SELECT count(*)::int AS count FROM jobs WHERE outcome = 'completed'`,
  )
  return rows[0]?.count ?? 0
}

async function killChild(storm: Storm): Promise<void> {
  const pid = await eventually(async () => {
    const { rows } = await storm.postgres.query<{ children: { pid: number; state: string }[] }>(
      `SELECT children FROM nodes WHERE pid = $1`,
      [storm.worker.pid],
    )
    const up = rows[0]?.children.find((child) => child.state === 'up' && isAlive(child.pid))
    if (!up) throw new Error('no child is up')
    return up.pid
  })
  process.kill(pid, 'SIGKILL')
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

async function restartWorker(storm: Storm): Promise<void> {
  storm.worker.signal('SIGTERM')
  expect((await storm.worker.exit).code).toBe(0)
  storm.worker = spawnBaton(['worker'], storm.environment)
}

async function emptyRedis(redis: PrivateServer): Promise<void> {
  const client = createRedis(redis.url, 'consumer')
  await client.flushall()
  client.disconnect()
}
