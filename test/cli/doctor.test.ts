import { describe, expect, it } from 'vitest'
import { createPostgres } from '../../src/platform/postgres/postgres.ts'
import { testDatabase, testRedis } from '../support/databases.ts'
import { freePort } from '../support/processes.ts'
import { startRedis } from '../support/servers.ts'
import { runBaton } from './run-baton.ts'

interface Finding {
  name: string
  state: 'ok' | 'warning' | 'fault'
  found: string
  remedy?: string
}

async function doctor(env: Record<string, string>): Promise<{ code: number | null; findings: Finding[] }> {
  const { code, stdout } = await runBaton(['doctor', '--json'], { env })
  return { code, findings: (JSON.parse(stdout) as { findings: Finding[] }).findings }
}

const bad = (findings: Finding[]): Finding[] => findings.filter(({ state }) => state !== 'ok')

async function emptyDatabase(): Promise<string> {
  const { url } = await testDatabase()
  const postgres = createPostgres({ url, max: 1, applicationName: 'test', onError: () => undefined })
  await postgres.query('DROP SCHEMA public CASCADE; CREATE SCHEMA public')
  await postgres.close()
  return url
}

describe('doctor', () => {
  it('finds nothing wrong with a site that is ready, and ends with 0', async () => {
    const { code, findings } = await doctor({
      DATABASE_URL: (await testDatabase()).url,
      REDIS_URL: (await testRedis()).url,
      BATON_API_KEYS: 'operator:a-key-of-sixteen-characters',
    })
    expect({ code, bad: bad(findings) }).toEqual({ code: 0, bad: [] })
    const names = ['Configuration', 'Jobs', 'Postgres', 'Migrations', 'API keys', 'Redis', 'Eviction']
    expect(findings.map((finding) => finding.name)).toEqual(expect.arrayContaining(names))
  })

  it('warns of a site that nobody can use yet, and of bodies that would go with their machine', async () => {
    const { code, findings } = await doctor({
      NODE_ENV: 'production',
      BATON_SECRET: 'a-secret-of-sixteen-characters',
      DATABASE_URL: (await testDatabase()).url,
    })
    expect(code).toBe(0)
    expect(bad(findings)).toEqual([
      expect.objectContaining({
        name: 'API keys',
        state: 'warning',
        remedy: expect.stringContaining('keys create'),
      }),
      expect.objectContaining({
        name: 'Bodies',
        state: 'warning',
        remedy: expect.stringContaining('BODY_STORES'),
      }),
    ])
  })

  it('names the migrations that a database lacks, and the verb that brings them', async () => {
    const { code, findings } = await doctor({ DATABASE_URL: await emptyDatabase() })
    expect(code).toBe(1)
    expect(bad(findings)).toEqual([
      {
        name: 'Migrations',
        state: 'fault',
        found: expect.stringContaining('0001_jobs'),
        remedy: 'Run `baton release`.',
      },
    ])
  })

  it('finds a Redis that evicts', async () => {
    const redis = await startRedis({ args: ['--maxmemory-policy', 'allkeys-lru'] })
    const { code, findings } = await doctor({
      DATABASE_URL: (await testDatabase()).url,
      REDIS_URL: redis.url,
      BATON_API_KEYS: 'operator:a-key-of-sixteen-characters',
    })
    expect(code).toBe(1)
    expect(bad(findings)).toEqual([
      {
        name: 'Eviction',
        state: 'fault',
        found: expect.stringContaining('allkeys-lru'),
        remedy: 'Set maxmemory-policy to noeviction.',
      },
    ])
  })

  it('tells of both stores when neither answers, and shows no password', async () => {
    const port = await freePort()
    const env = {
      DATABASE_URL: `postgres://baton:hidden-word@127.0.0.1:${port}/baton`,
      REDIS_URL: `redis://:hidden-word@127.0.0.1:${port}`,
    }
    const { code, stdout, stderr } = await runBaton(['doctor'], { env })
    expect({ code, stderr }).toEqual({ code: 1, stderr: '' })
    expect(stdout).toMatch(/FAULT {4}Postgres: .*ECONNREFUSED/)
    expect(stdout).toMatch(/FAULT {4}Redis: .*ECONNREFUSED/)
    expect(stdout).toContain('→ See that it runs, and that DATABASE_URL names it.')
    expect(stdout).not.toContain('hidden-word')
  })

  it('tells every fault of the environment at once', async () => {
    const { code, findings } = await doctor({ NODE_ENV: 'production', REDIS_URL: 'http://x', PORT: 'x' })
    expect(code).toBe(78)
    expect(findings.map(({ found }) => found.split(' ')[0])).toEqual([
      'DATABASE_URL',
      'REDIS_URL',
      'PORT',
      'BATON_SECRET',
    ])
  })

  it('finds a job file that throws', async () => {
    const env = { DATABASE_URL: (await testDatabase()).url, JOBS_MODULE: 'test/cli/nowhere.ts' }
    const { code, findings } = await doctor(env)
    expect(code).toBe(1)
    expect(findings.find(({ name }) => name === 'Jobs')).toMatchObject({
      state: 'fault',
      found: expect.stringContaining('test/cli/nowhere.ts'),
    })
  })
})

describe('release', () => {
  it('brings an empty database up to date, once, also side by side', async () => {
    const env = { DATABASE_URL: await emptyDatabase() }
    const side = await Promise.all([1, 2].map(() => runBaton(['release', '--json'], { env })))
    expect(side.map(({ code }) => code)).toEqual([0, 0])
    const applied = side.flatMap(({ stdout }) => (JSON.parse(stdout) as { applied: string[] }).applied)
    expect(applied).toContain('0001_jobs')
    expect(new Set(applied).size).toBe(applied.length)
    expect(await runBaton(['release'], { env })).toEqual({
      code: 0,
      stdout: 'nothing to apply\n',
      stderr: '',
    })
    expect((await doctor(env)).code).toBe(0)
  })

  it('ends with 1 and the reason when Postgres is not there', async () => {
    const env = { DATABASE_URL: `postgres://x@127.0.0.1:${await freePort()}/x` }
    const { code, stderr } = await runBaton(['release'], { env })
    expect(code).toBe(1)
    expect(stderr).toContain('ECONNREFUSED')
  })
})
