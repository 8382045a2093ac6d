import { Type } from 'typebox'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import type { Service } from '../../../src/core/lifecycle.ts'
import { createPostgres, type Postgres } from '../../../src/platform/postgres/postgres.ts'
import { defineJob } from '../../../src/platform/queues/job.ts'
import { createLedger } from '../../../src/platform/queues/ledger-postgres.ts'
import { createRegistry } from '../../../src/platform/queues/registry.ts'
import { createScheduler } from '../../../src/platform/queues/schedule.ts'
import { testDatabase } from '../../support/databases.ts'
import { eventually } from '../../support/processes.ts'

const clock = createSystemClock()
let postgres: Postgres
let services: Service[] = []

beforeEach(async () => {
  const { url } = await testDatabase()
  postgres = createPostgres({ url, max: 8, applicationName: 'test', onError: () => undefined })
})
afterEach(async () => {
  for (const service of services.splice(0)) await service.stop()
  await postgres.close()
})

const nightly = (cron = '0 3 * * *', timeZone?: string) =>
  defineJob({
    name: 'nightly',
    payload: Type.Object({ full: Type.Boolean() }),
    schedule: { cron, payload: { full: true }, ...(timeZone === undefined ? {} : { timeZone }) },
    run: async () => undefined,
  })
const start = async (jobs: ReturnType<typeof nightly>[], errors: unknown[] = []): Promise<Service> => {
  const scheduler = createScheduler({
    postgres,
    ledger: createLedger({ postgres, clock }),
    registry: createRegistry(jobs),
    clock,
    onError: (error) => void errors.push(error),
  })
  services.push(scheduler)
  await scheduler.start()
  return scheduler
}
const schedules = async () =>
  (
    await postgres.query<{ name: string; cron: string; next_at: Date }>(
      'SELECT * FROM schedules ORDER BY name',
    )
  ).rows
const jobs = async () => (await postgres.query('SELECT name, payload, queued FROM jobs')).rows
const makeDue = () => postgres.query(`UPDATE schedules SET next_at = now() - interval '3 days'`)

describe('the scheduler', () => {
  it('fires a due schedule once, however many processes look and however often it was missed', async () => {
    await Promise.all(Array.from({ length: 5 }, () => start([nightly()])))
    await eventually(async () => expect(await schedules()).toHaveLength(1))
    expect(await jobs()).toEqual([])
    await makeDue()
    await eventually(async () => expect(await jobs()).not.toEqual([]))
    await clock.sleep(1_200)
    expect(await jobs()).toEqual([{ name: 'nightly', payload: { full: true }, queued: false }])
    expect((await schedules())[0]?.next_at.getTime()).toBeGreaterThan(clock.now())
  })

  it('keeps the time of a schedule over a restart, and computes it anew when it was changed', async () => {
    await (await start([nightly()])).stop()
    await eventually(async () => expect(await schedules()).toHaveLength(1))
    await postgres.query(`UPDATE schedules SET next_at = '2099-01-01T00:00:00Z'`)
    await (await start([nightly()])).stop()
    expect((await schedules())[0]?.next_at.toISOString()).toBe('2099-01-01T00:00:00.000Z')
    await start([nightly('0 4 * * *')])
    await eventually(async () => {
      const [row] = await schedules()
      expect(row?.cron).toBe('0 4 * * *')
      expect(row?.next_at.getUTCHours()).toBe(4)
      expect(row?.next_at.getUTCFullYear()).toBeLessThan(2099)
    })
  })

  it('removes a schedule that nobody has any more, but not at once', async () => {
    await (await start([nightly()])).stop()
    await eventually(async () => expect(await schedules()).toHaveLength(1))
    const other = await start([])
    await other.stop()
    expect(await schedules()).toHaveLength(1)
    await postgres.query(`UPDATE schedules SET seen_at = now() - interval '5 minutes'`)
    await start([])
    await eventually(async () => expect(await schedules()).toEqual([]))
  })

  it('leaves a schedule that another release has changed to that release', async () => {
    await start([nightly()])
    await eventually(async () => expect(await schedules()).toHaveLength(1))
    await postgres.query(`UPDATE schedules SET cron = '0 5 * * *'`)
    await makeDue()
    await clock.sleep(1_300)
    expect(await jobs()).toEqual([])
  })

  it('is not spoiled by a time zone that does not exist', async () => {
    const errors: unknown[] = []
    // A definition with such a zone is refused, but another machine may know fewer of them.
    const schedule = { cron: '* * * * *', timeZone: 'Mars/Olympus', payload: { full: true } }
    const broken = { ...nightly(), name: 'broken', schedule }
    await start([nightly(), broken], errors)
    await eventually(async () => expect((await schedules()).map(({ name }) => name)).toEqual(['nightly']))
    expect(errors).toHaveLength(1)
  })
})
