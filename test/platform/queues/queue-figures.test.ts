import { afterAll, beforeAll, expect, it } from 'vitest'
import { createPostgres, type Postgres } from '../../../src/platform/postgres/postgres.ts'
import { readQueueFigures, readReconciliation } from '../../../src/platform/queues/queue-figures.ts'
import { testDatabase } from '../../support/databases.ts'

let postgres: Postgres
beforeAll(async () => {
  const { url } = await testDatabase()
  postgres = createPostgres({ url, max: 2, applicationName: 'test', onError: () => undefined })
})
afterAll(() => postgres.close())

const insert = (count: number, columns: Record<string, string>): Promise<unknown> =>
  postgres.query(
    `INSERT INTO jobs (id, name, payload, ${Object.keys(columns).join(', ')})
     SELECT gen_random_uuid(), 'mail', '{}', ${Object.values(columns).join(', ')} FROM generate_series(1, ${count}) AS n`,
  )

it('tells what waits, is delayed, runs and has failed in each queue, known or not, and the oldest of each', async () => {
  await insert(3, { queue: `'a'`, run_at: `now() - n * interval '1 minute'` })
  await insert(2, { queue: `'a'`, run_at: `now() + interval '1 hour'`, queued: 'false' })
  await insert(1, { queue: `'b'`, run_token: 'gen_random_uuid()' })
  await insert(4, { queue: `'old'`, outcome: `'failed'`, finished_at: 'now()' })
  const reading = await readQueueFigures(postgres, ['a', 'idle'])
  expect(reading).toMatchObject({ unfinishedExact: true, failedExact: true })
  const nothing = { waiting: 0, delayed: 0, active: 0, failed: 0, oldestWaitingMs: 0 }
  expect(reading.queues).toEqual([
    { ...nothing, queue: 'a', waiting: 3, delayed: 2, oldestWaitingMs: expect.any(Number) },
    { ...nothing, queue: 'b', active: 1 },
    { ...nothing, queue: 'idle' },
    { ...nothing, queue: 'old', failed: 4 },
  ])
  expect(reading.queues[0]?.oldestWaitingMs).toBeGreaterThanOrEqual(180_000)
  expect(await readReconciliation(postgres)).toEqual({ unqueued: 2, exact: true })
})

it('says where it stopped counting, and still knows the oldest', async () => {
  await insert(50_000, { queue: `'flood'`, run_at: `now() - interval '1 second'` })
  const reading = await readQueueFigures(postgres, [])
  expect(reading).toMatchObject({ unfinishedExact: false, failedExact: true })
  expect(reading.queues.find((each) => each.queue === 'a')?.oldestWaitingMs).toBeGreaterThanOrEqual(180_000)
})
