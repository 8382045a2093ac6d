import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { newId } from '../../../src/core/ids.ts'
import { createPostgres, type Postgres } from '../../../src/platform/postgres/postgres.ts'
import type { NewJob } from '../../../src/platform/queues/ledger.ts'
import { insertJobs } from '../../../src/platform/queues/ledger-insert.ts'
import { testDatabase } from '../../support/databases.ts'

const clock = createSystemClock()
let postgres: Postgres

beforeAll(async () => {
  const { url } = await testDatabase()
  postgres = createPostgres({ url, max: 2, applicationName: 'test', onError: () => undefined })
})
afterAll(() => postgres.close())

const newJob = (more: Partial<NewJob> = {}): NewJob => ({
  id: newId(clock.now()),
  name: 'report',
  queue: 'default',
  payload: {},
  priority: 0,
  maxAttempts: 3,
  delayMs: 0,
  queued: true,
  ...more,
})
const row = async (id: string): Promise<Record<string, unknown>> =>
  (await postgres.query('SELECT * FROM jobs WHERE id = $1', [id])).rows[0] ?? {}

describe('a bulk of rows', () => {
  it('writes of rows that are alike in all but what they carry the same columns as of others', async () => {
    const rest = { priority: 3, maxAttempts: 7, delayMs: 60_000, queued: false, context: { requestId: 'r' } }
    const alike = [newJob(rest), newJob(rest)]
    const [odd, other] = [newJob(rest), newJob()]
    expect(await insertJobs(postgres, alike, undefined)).toEqual(
      alike.map(({ id }) => ({ id, duplicate: false, delayMs: 60_000 })),
    )
    await insertJobs(postgres, [odd, other], undefined)
    const columnsOf = async (id: string): Promise<unknown> => {
      const { id: _id, enqueued_at: _at, run_at: runAt, ...columns } = await row(id)
      return { ...columns, isLater: (runAt as Date).getTime() > clock.now() + 30_000 }
    }
    expect(await columnsOf(alike[1]?.id ?? '')).toEqual(await columnsOf(odd.id))
    expect(await columnsOf(odd.id)).toMatchObject({ isLater: true, priority: 3, queued: false })
  })
})
