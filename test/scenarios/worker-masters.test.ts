import path from 'node:path'
import { expect, test } from 'vitest'
import { migrate } from '../../src/platform/postgres/migrate.ts'
import { eventually, projectRoot } from '../support/processes.ts'
import { startPostgres } from '../support/servers.ts'
import { openSite, type Site } from '../support/workers.ts'

const env = { JOBS_MODULE: path.join(projectRoot, 'test/fixtures/jobs/yearly.ts') }

/** Makes the schedule due, and waits until somebody has fired it. */
async function tick(site: Site): Promise<void> {
  await site.query("UPDATE schedules SET next_at = date_trunc('milliseconds', now()) WHERE name = 'yearly'")
  await eventually(
    async () => {
      const due = await site.query("SELECT FROM schedules WHERE name = 'yearly' AND next_at <= now()")
      expect(due).toEqual([])
    },
    { timeoutMs: 30_000 },
  )
}

test('two masters run each time of a schedule once, also while both are rolled twenty times in a row', async () => {
  const site = await openSite({ engine: 'redis' })
  const workers = [await site.startWorker(env), await site.startWorker(env)]
  for (let time = 0; time < 4; time++) await tick(site)
  for (let time = 0; time < 20; time++) for (const worker of workers) worker.signal('SIGHUP')
  for (let time = 0; time < 4; time++) await tick(site)
  for (const worker of workers) await worker.waitForLine(/all children are new/, 30_000)
  await tick(site)
  await eventually(
    async () => {
      const rows = await site.query("SELECT attempts, interruptions, outcome FROM jobs WHERE name = 'yearly'")
      expect(rows).toEqual(
        Array.from({ length: 9 }, () => ({ attempts: 1, interruptions: 0, outcome: 'completed' })),
      )
    },
    { timeoutMs: 30_000 },
  )
  // Forty signals ask for two rolls of each: the one under way, and one more.
  for (const worker of workers) {
    expect(worker.lines.filter((line) => line.includes('rolling the children')).length).toBeLessThanOrEqual(2)
  }
  await eventually(
    async () =>
      expect((await site.nodes()).map((node) => node.children.map((child) => child.state))).toEqual([
        ['up'],
        ['up'],
      ]),
    { timeoutMs: 30_000 },
  )
  for (const worker of workers) worker.signal('SIGTERM')
  for (const worker of workers) expect((await worker.exit).code).toBe(0)
})

test('a password of Postgres is rotated: old connections go on, new workers take the jobs that old ones cannot', async () => {
  const postgres = await startPostgres()
  await migrate(postgres.url)
  const site = await openSite({ engine: 'redis', databaseUrl: postgres.url })
  await site.query(`CREATE ROLE rotated LOGIN SUPERUSER PASSWORD 'first-word'`)
  const urlWith = (password: string): string => {
    const url = new URL(postgres.url)
    url.username = 'rotated'
    url.password = password
    return url.href
  }
  const old = await site.startWorker({ DATABASE_URL: urlWith('first-word') })
  await site.jobIs(await site.enqueue('sleep', { ms: 1 }), 'completed')
  await site.query(`ALTER ROLE rotated PASSWORD 'second-word'`)
  await site.jobIs(await site.enqueue('sleep', { ms: 1 }), 'completed')
  const late = site.spawnWorker({ DATABASE_URL: urlWith('first-word'), BOOT_TIMEOUT_MS: '2000' })
  expect((await late.exit).code).toBe(1)
  expect(late.lines.join('\n')).toMatch(/password authentication failed/)
  expect(late.lines.join('\n')).not.toMatch(/(first|second)-word/)

  // The connections of the old worker end one after the other, and it can make no others: it has jobs it cannot start.
  const ended = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE usename = 'rotated' AND application_name = 'baton child'`
  await site.query(ended)
  const ids: string[] = []
  for (let job = 0; job < 8; job++) ids.push(await site.enqueue('sleep', { ms: 1 }))
  const fresh = await site.startWorker({ DATABASE_URL: urlWith('second-word') })
  const began = performance.now()
  for (const id of ids) await site.jobIs(id, 'completed', 30_000)
  console.log(
    `jobs that the old worker could not start ran after ${Math.round(performance.now() - began)} ms`,
  )
  for (const worker of [old, fresh]) worker.signal('SIGTERM')
  expect((await fresh.exit).code).toBe(0)
  expect([0, 75]).toContain((await old.exit).code)
})
