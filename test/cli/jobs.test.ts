import { beforeAll, describe, expect, it } from 'vitest'
import { createSystemClock } from '../../src/core/clock.ts'
import { newId } from '../../src/core/ids.ts'
import { createAuditLog } from '../../src/platform/access/audit-log.ts'
import { createPostgres, type Postgres } from '../../src/platform/postgres/postgres.ts'
import { testDatabase, testRedis } from '../support/databases.ts'
import { atEndOfTest } from '../support/processes.ts'
import { runBaton } from './run-baton.ts'

let environment: Record<string, string>
beforeAll(async () => {
  environment = {
    DATABASE_URL: (await testDatabase()).url,
    REDIS_URL: (await testRedis()).url,
    JOBS_MODULE: 'test/fixtures/jobs/index.ts',
  }
})

const jobs = (args: string[], input?: string) =>
  runBaton(['jobs', ...args], { env: environment, ...(input === undefined ? {} : { input }) })
const idsOf = (text: string): string[] => text.split('\n').filter(Boolean)
const enqueued = async (...args: string[]): Promise<string> =>
  (await jobs(['enqueue', ...args])).stdout.trim()
const shown = async (id: string): Promise<Record<string, unknown>> =>
  JSON.parse((await jobs(['show', id])).stdout) as Record<string, unknown>

function openDatabase(): Postgres {
  const postgres = createPostgres({
    url: environment['DATABASE_URL'] ?? '',
    max: 1,
    applicationName: 'test',
    onError: () => undefined,
  })
  atEndOfTest(() => postgres.close())
  return postgres
}

const end = (postgres: Postgres, id: string, outcome: string): Promise<unknown> =>
  postgres.query(`UPDATE jobs SET outcome = $2, finished_at = now() WHERE id = $1`, [id, outcome])

describe('jobs enqueue', () => {
  it('takes one job in and prints its id alone', async () => {
    const { code, stdout, stderr } = await jobs([
      'enqueue',
      'sleep',
      '{"ms":1}',
      '--delay',
      '60000',
      '--json',
    ])
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    const { id } = JSON.parse(stdout) as { id: string }
    expect(await shown(id)).toMatchObject({ id, name: 'sleep', state: 'delayed', payload: { ms: 1 } })
  })

  it.each([
    ['a payload that does not fit', ['sleep', '{"ms":"long"}'], '/payload/ms must be a number'],
    ['no payload where one is needed', ['sleep'], '/payload/ms is missing'],
    ['a payload that is no JSON', ['sleep', '{'], 'the payload'],
    ['a number that a double cannot hold', ['sleep', '{"ms":9007199254740993}'], 'a double cannot hold'],
    ['a name that nobody knows', ['nosuch', '{}'], 'There is no job named nosuch'],
  ])('refuses %s as the HTTP API does', async (_what, args, message) => {
    const { code, stdout, stderr } = await jobs(['enqueue', ...args])
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    expect(stderr).toContain(message)
    expect(stderr.trim().split('\n')).toHaveLength(1)
  })

  it('takes a job a line from standard input, with all that the HTTP API knows', async () => {
    const lines = [
      { name: 'sleep', payload: { ms: 1 } },
      { name: 'sleep', payload: { ms: 2 }, delayMs: 60_000, priority: 7 },
      { name: 'sleep', payload: { ms: 3 }, dedupeKey: 'once' },
      { name: 'sleep', payload: { ms: 4 }, dedupeKey: 'once' },
    ]
    const input = `${lines.map((line) => JSON.stringify(line)).join('\r\n\n')}`
    const { code, stdout } = await jobs(['enqueue'], input)
    expect(code).toBe(0)
    const ids = idsOf(stdout)
    expect(ids).toHaveLength(4)
    expect(ids[3]).toBe(ids[2])
    expect(await shown(ids[1] ?? '')).toMatchObject({ state: 'delayed', priority: 7, payload: { ms: 2 } })
  })

  it.each([
    ['{"name":"sleep","payload":{"ms":"long"}}', 'line 3: /payload/ms must be a number. 2 before it'],
    ['nojson', 'line 3: The body is not valid JSON'],
    ['null', 'line 3: / must be an object'],
  ])('stops at the line %s, says which it is, and what became of those before', async (bad, message) => {
    const good = '{"name":"sleep","payload":{"ms":1},"delayMs":60000}'
    const { code, stdout, stderr } = await jobs(['enqueue'], `${good}\n${good}\n${bad}\n${good}\n`)
    expect(code).toBe(1)
    expect(stderr).toContain(message)
    const ids = idsOf(stdout)
    expect(ids).toHaveLength(2)
    expect(await shown(ids[1] ?? '')).toMatchObject({ state: 'delayed' })
  })

  it('says so when standard input is empty', async () => {
    const { code, stdout, stderr } = await jobs(['enqueue'], '\n')
    expect({ code, stdout }).toEqual({ code: 0, stdout: '' })
    expect(stderr).toContain('standard input had no line')
  })
})

describe('jobs list', () => {
  it('gives pages that are continued by their cursor, and filters', async () => {
    const input = Array.from({ length: 5 }, (_, ms) =>
      JSON.stringify({ name: 'stubborn', payload: { ms }, delayMs: 60_000 }),
    ).join('\n')
    const ids = idsOf((await jobs(['enqueue'], input)).stdout)
    const page = async (...args: string[]): Promise<{ jobs: { id: string }[]; cursor?: string }> => {
      const { stdout } = await jobs(['list', '--name', 'stubborn', '--limit', '3', '--json', ...args])
      return JSON.parse(stdout) as { jobs: { id: string }[]; cursor?: string }
    }
    const first = await page()
    const second = await page('--cursor', first.cursor ?? '')
    expect(first.jobs).toHaveLength(3)
    expect([...first.jobs, ...second.jobs].map((job) => job.id).sort()).toEqual(ids.sort())
    expect(second.cursor).toBeUndefined()
    const completed = await jobs(['list', '--name', 'stubborn', '--state', 'completed'])
    expect(completed).toEqual({ code: 0, stdout: '', stderr: 'There is no such job.\n' })
  })

  it('refuses a cursor that is none', async () => {
    const { code, stderr } = await jobs(['list', '--cursor', 'abc'])
    expect(code).toBe(1)
    expect(stderr).toContain('is not a cursor of this list')
  })
})

describe('jobs cancel and retry', () => {
  it('act on one job, say what they did, and stand in the audit log', async () => {
    const postgres = openDatabase()
    const id = await enqueued('sleep', '{"ms":1}', '--delay', '60000')
    const early = await jobs(['retry', id])
    expect(early.code).toBe(1)
    expect(early.stderr).toContain(`The job ${id} is delayed; only a finished one can be retried`)
    expect((await jobs(['cancel', id, '--json'])).stdout).toBe(`{"id":"${id}","state":"cancelled"}\n`)
    const late = await jobs(['cancel', id])
    expect(late.code).toBe(1)
    expect(late.stderr).toContain(`The job ${id} is cancelled already`)
    expect((await jobs(['retry', id])).stdout).toBe('1 set back to waiting\n')
    expect(await shown(id)).toMatchObject({ state: 'waiting', retried: 1 })
    const entries = await createAuditLog({ postgres }).list({ limit: 10, subject: id })
    expect(entries.map((entry) => entry.action)).toEqual(['job.retry', 'job.cancel'])
    expect(entries[0]?.actor).toMatch(/^command line/)
  })

  it('set back all that have failed, or those of a name', async () => {
    const postgres = openDatabase()
    const input = ['sleep', 'sleep', 'stubborn']
      .map((name) => JSON.stringify({ name, payload: { ms: 1 }, delayMs: 60_000 }))
      .join('\n')
    for (const id of idsOf((await jobs(['enqueue'], input)).stdout)) await end(postgres, id, 'failed')
    expect((await jobs(['retry', '--failed', '--name', 'stubborn', '--json'])).stdout).toBe('{"retried":1}\n')
    expect((await jobs(['retry', '--failed'])).stdout).toBe('2 set back to waiting\n')
    expect((await jobs(['retry', '--failed'])).stdout).toBe('0 set back to waiting\n')
  })

  it.each(['show', 'retry', 'cancel'])('%s tells that a job does not exist', async (verb) => {
    const id = newId(createSystemClock().now())
    for (const unknown of [id, 'no-id']) {
      const { code, stdout, stderr } = await jobs([verb, unknown])
      expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
      expect(stderr).toBe(`baton: There is no job ${unknown}. [JOB_NOT_FOUND]\n`)
    }
  })
})
