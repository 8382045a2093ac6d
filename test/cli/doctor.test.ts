import { describe, expect, it, onTestFinished } from 'vitest'
import { createPostgres } from '../../src/platform/postgres/postgres.ts'
import { createSite } from '../../src/platform/replication/site.ts'
import { testDatabase, testRedis } from '../support/databases.ts'
import { freePort } from '../support/processes.ts'
import { apnsAccount, fcmAccount } from '../support/provider-accounts.ts'
import { serviceCaFile, startPushService } from '../support/push-service.ts'
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
    const names = [
      'Configuration',
      'Jobs',
      'Postgres',
      'Migrations',
      'API keys',
      'Redis',
      'Eviction',
      'APNs',
      'FCM',
    ]
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

  it('asks the providers of pushes whether they take the credentials, and sends nothing', async () => {
    const [apple, google] = await Promise.all([startPushService(), startPushService('http')])
    onTestFinished(async () => {
      await apple.close()
      await google.close()
    })
    const { teamId, keyId, pem } = apnsAccount()
    const env = {
      DATABASE_URL: (await testDatabase()).url,
      APNS_TEAM_ID: teamId,
      APNS_KEY_ID: keyId,
      APNS_KEY: pem,
      APNS_ORIGIN: apple.origin,
      FCM_SERVICE_ACCOUNT: JSON.stringify(fcmAccount(`${google.origin}/token`).json),
      FCM_ORIGIN: google.origin,
      NODE_EXTRA_CA_CERTS: serviceCaFile,
    }
    const states = async (more = {}) => {
      const { code, findings } = await doctor({ ...env, ...more })
      const found = findings.filter(({ name }) => name === 'APNs' || name === 'FCM')
      return { code, found: found.map(({ state, found: text }) => `${state}: ${text}`) }
    }
    google.answer({ status: 200, body: '{"access_token":"secret-token","expires_in":3599}' })
    expect(await states()).toEqual({
      code: 0,
      found: [
        `ok: team ${teamId}, key ${keyId}, ${apple.origin}`,
        'ok: push@project-1.iam.gserviceaccount.com may send for project-1',
      ],
    })
    google.answer({ status: 400, body: '{"error":"invalid_grant","error_description":"no such account"}' })
    const port = await freePort()
    expect(await states({ APNS_ORIGIN: `https://localhost:${port}` })).toEqual({
      code: 1,
      found: [
        expect.stringMatching(/^fault: .*ECONNREFUSED/),
        'fault: no access token: 400 invalid_grant: no such account',
      ],
    })
    expect((await states({ APNS_TEAM_ID: 'short' })).found[0]).toMatch(/^warning: APNS_TEAM_ID/)
    expect(apple.received).toEqual([])
    expect(google.received.map(({ path }) => path)).toEqual(['/token', '/token', '/token'])
  })

  it('finds credentials of pushes that are none, with which no process starts either', async () => {
    const env = {
      DATABASE_URL: (await testDatabase()).url,
      APNS_TEAM_ID: 'TEAM123456',
      APNS_KEY: 'nowhere.p8',
      FCM_SERVICE_ACCOUNT: '{"project_id":"p"}',
    }
    const { code, findings } = await doctor(env)
    expect(code).toBe(78)
    const named = findings.map(({ found }) => found.split(' ')[0])
    expect(named).toEqual(['APNS_KEY', 'FCM_SERVICE_ACCOUNT', 'APNS_KEY_ID'])
    const started = await Promise.all(['worker', 'web'].map((verb) => runBaton([verb], { env })))
    expect(started.map((each) => each.code)).toEqual([78, 78])
    for (const { stderr } of started) for (const name of named) expect(stderr).toContain(name)
  })

  it('counts the connections for replication once the site has others', async () => {
    const { url } = await testDatabase()
    const budget = async (): Promise<string | undefined> =>
      (await doctor({ DATABASE_URL: url })).findings.find(({ name }) => name === 'Connection budget')?.found
    expect(await budget()).not.toContain('replication')
    const postgres = createPostgres({ url, max: 1, applicationName: 'test', onError: () => undefined })
    await createSite({ postgres }).lead()
    await postgres.close()
    expect(await budget()).toContain('8 of them for replication')
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
