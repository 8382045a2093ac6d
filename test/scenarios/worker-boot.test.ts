import path from 'node:path'
import { expect, test } from 'vitest'
import { createSystemClock } from '../../src/core/clock.ts'
import { migrate } from '../../src/platform/postgres/migrate.ts'
import { testDatabase } from '../support/databases.ts'
import { type BatonProcess, eventually, projectRoot, spawnBaton } from '../support/processes.ts'
import { type PrivateServer, startPostgres, startRedis } from '../support/servers.ts'
import { longestStopMs, openSite, type Site } from '../support/workers.ts'

const jobs = (file: string) => path.join(projectRoot, 'test/fixtures/jobs', file)
const clock = createSystemClock()

/** Runs `baton worker` to its end. */
async function boot(env: Record<string, string>) {
  const worker = spawnBaton(['worker'], { WORKER_PROCESSES: '2', ...env })
  const { code } = await worker.exit
  return { code, output: worker.lines.join('\n'), lines: worker.lines }
}

test('a job file that throws is named, and no child is forked', async () => {
  const { code, output } = await boot({
    JOBS_MODULE: jobs('throws.ts'),
    DATABASE_URL: 'postgres://127.0.0.1:1/x',
  })
  expect(code).toBe(78)
  expect(output).toContain('test/fixtures/jobs/broken/thrower.ts: this job file is broken')
  expect(output).not.toContain('child')
})

test('two jobs of one name are named, and no child is forked', async () => {
  const { code, output } = await boot({
    JOBS_MODULE: jobs('twice.ts'),
    DATABASE_URL: 'postgres://127.0.0.1:1/x',
  })
  expect(code).toBe(78)
  expect(output).toContain('Two jobs have the name twin')
  expect(output).toContain('twice.ts')
})

test('a jobs module that is not there is named', async () => {
  const { code, output } = await boot({
    JOBS_MODULE: jobs('nowhere.ts'),
    DATABASE_URL: 'postgres://127.0.0.1:1/x',
  })
  expect(code).toBe(78)
  expect(output).toContain('nowhere.ts')
})

test('a queue that no job names is refused', async () => {
  const { code, output } = await boot({
    JOBS_MODULE: jobs('index.ts'),
    WORKER_QUEUES: 'default,mails',
    DATABASE_URL: 'postgres://127.0.0.1:1/x',
  })
  expect(code).toBe(78)
  expect(output).toContain('no job names the queue mails')
})

test('a Postgres without migrations is one clear error and no crash loop', async () => {
  const postgres = await startPostgres()
  const began = clock.monotonicMs()
  const { code, output, lines } = await boot({ JOBS_MODULE: jobs('index.ts'), DATABASE_URL: postgres.url })
  expect(code).toBe(1)
  expect(output).toContain('DATABASE_NOT_MIGRATED')
  expect(output).toContain('baton release')
  expect(lines.filter((line) => line.includes('DATABASE_NOT_MIGRATED'))).toHaveLength(1)
  expect(clock.monotonicMs() - began).toBeLessThan(20_000)
})

test('a Postgres that is away is waited for until BOOT_TIMEOUT_MS, then the exit code is 1', async () => {
  const { code, output } = await boot({
    JOBS_MODULE: jobs('index.ts'),
    DATABASE_URL: 'postgres://nobody@127.0.0.1:1/x',
    BOOT_TIMEOUT_MS: '1500',
  })
  expect(code).toBe(1)
  expect(output).toContain('waiting for Postgres')
  expect(output).toContain('DATABASE_UNAVAILABLE')
})

test('a worker that never becomes ready ends with 1', async () => {
  const site = await openSite({ engine: 'redis' })
  const worker = site.spawnWorker({ JOBS_MODULE: jobs('only-in-master.ts') })
  const { code } = await worker.exit
  expect(code).toBe(1)
  expect(worker.lines.some((line) => line.includes('WORKER_NEVER_READY'))).toBe(true)
  expect(await site.nodes()).toEqual([])
})

/** What a store can do to a boot: not be there, or be there and never answer. */
const troubles = {
  refuses: {
    begin: (server: PrivateServer) => server.kill(),
    end: (server: PrivateServer) => server.restart(),
  },
  'never answers': {
    begin: (server: PrivateServer) => server.freeze(true),
    end: (server: PrivateServer) => server.freeze(false),
  },
}
const kinds = Object.keys(troubles) as (keyof typeof troubles)[]
const waitingLines = (worker: BatonProcess) => worker.lines.filter((line) => line.includes('"waiting for'))
const childPids = async (site: Site) => (await site.nodes())[0]?.children.map((child) => child.pid)

test.each(kinds)(
  'a Redis that %s at the boot is waited for, visibly, and a stop is not held up',
  async (kind) => {
    const site = await openSite({ engine: 'redis' })
    const redis = site.redis as PrivateServer
    const id = await site.enqueue('sleep', { ms: 1 })
    await troubles[kind].begin(redis)
    const worker = site.spawnWorker({ SHUTDOWN_MS: '2000' })
    await worker.waitForLine(/"waiting for Redis/)
    await eventually(async () => {
      const [node] = await site.nodes()
      expect(node?.state).toBe('waiting')
      expect(node?.children.map((child) => child.state)).toEqual(['waiting'])
    })
    const pids = await childPids(site)
    const other = site.spawnWorker({ SHUTDOWN_MS: '2000' })
    await other.waitForLine(/"waiting for Redis/)
    const stoppedAt = clock.monotonicMs()
    other.signal('SIGTERM')
    expect((await other.exit).code).toBe(0)
    expect(clock.monotonicMs() - stoppedAt).toBeLessThan(longestStopMs(2_000))
    await troubles[kind].end(redis)
    const backAt = clock.monotonicMs()
    await worker.waitForLine(/child is up/)
    await site.jobIs(id, 'completed')
    const tookMs = Math.round(clock.monotonicMs() - backAt)
    console.log(`a Redis that ${kind} at the boot: jobs run ${tookMs} ms after its return`)
    expect(tookMs).toBeLessThan(6_000)
    expect(await childPids(site)).toEqual(pids)
    expect(waitingLines(worker)).toHaveLength(1)
    expect(worker.lines.filter((line) => /trouble/.test(line)).length).toBeLessThan(10)
    worker.signal('SIGTERM')
    expect((await worker.exit).code).toBe(0)
  },
)

/** A worker in the middle of whose boot the trouble begins: where one is up by then, as on a busy machine, another. */
async function bootInto(site: Site, postgres: PrivateServer, kind: (typeof kinds)[number]) {
  for (let times = 1; ; times += 1) {
    const id = await site.enqueue('sleep', { ms: 1 })
    const worker = site.spawnWorker({ SHUTDOWN_MS: '2000' })
    // The master stands in its row, its children are on their way.
    await eventually(async () => expect((await site.nodes())[0]?.pid).toBe(worker.pid), { everyMs: 5 })
    await troubles[kind].begin(postgres)
    const line = await worker.waitForLine(/"waiting for Postgres|child is up/)
    if (line.includes('waiting') || times === 4) return { worker, id }
    await troubles[kind].end(postgres)
    await worker.kill()
    await site.query('DELETE FROM nodes')
  }
}

test('a Postgres that carries the queue and goes away in the middle of the boot is waited for', async () => {
  const postgres = await startPostgres()
  await migrate(postgres.url)
  const site = await openSite({ engine: 'postgres', databaseUrl: postgres.url })
  for (const kind of kinds) {
    const { worker, id } = await bootInto(site, postgres, kind)
    await worker.waitForLine(/"waiting for Postgres/)
    await troubles[kind].end(postgres)
    const backAt = clock.monotonicMs()
    await worker.waitForLine(/child is up/)
    await site.jobIs(id, 'completed')
    const tookMs = Math.round(clock.monotonicMs() - backAt)
    console.log(`a Postgres that ${kind} during the boot: jobs run ${tookMs} ms after its return`)
    expect(tookMs).toBeLessThan(6_000)
    expect(worker.lines.filter((line) => line.includes('child died'))).toEqual([])
    expect(waitingLines(worker)).toHaveLength(1)
    await troubles[kind].begin(postgres)
    const stoppedAt = clock.monotonicMs()
    worker.signal('SIGTERM')
    await worker.exit
    const stopMs = clock.monotonicMs() - stoppedAt
    await troubles[kind].end(postgres)
    expect(stopMs).toBeLessThan(longestStopMs(2_000))
    await site.query('DELETE FROM nodes')
  }
})

test('a Redis that evicts is warned of', async () => {
  const { url } = await testDatabase()
  const redis = await startRedis({ args: ['--maxmemory-policy', 'allkeys-lru'] })
  const worker = spawnBaton(['worker'], {
    JOBS_MODULE: jobs('index.ts'),
    DATABASE_URL: url,
    REDIS_URL: redis.url,
    WORKER_PROCESSES: '1',
  })
  await worker.waitForLine(/maxmemory-policy allkeys-lru.*Set it to noeviction/)
  await worker.waitForLine(/child is up/)
  worker.signal('SIGTERM')
  expect((await worker.exit).code).toBe(0)
})

test('a TERM during the boot ends the worker, and nothing is left of it', async () => {
  const site = await openSite({ engine: 'redis' })
  for (const delayMs of [50, 200, 400, 700, 1_000]) {
    const worker = site.spawnWorker()
    await clock.sleep(delayMs)
    worker.signalGroup('SIGTERM')
    const { code, signal } = await worker.exit
    expect(signal ?? code).toBeOneOf([0, 'SIGTERM'])
  }
  await eventually(async () => expect(await site.nodes()).toEqual([]))
})

test('a wrong environment lists every fault at once and ends with 78', async () => {
  const { code, output } = await boot({ SHUTDOWN_MS: 'soon', WORKER_PROCESSES: '0' })
  expect(code).toBe(78)
  expect(output).toContain('SHUTDOWN_MS')
  expect(output).toContain('WORKER_PROCESSES')
})
