import { afterEach, describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { createPostgres, type Postgres } from '../../../src/platform/postgres/postgres.ts'
import { createSite, type Site, type SiteState } from '../../../src/platform/replication/site.ts'
import { createSiteWatch, type SiteWatch } from '../../../src/platform/replication/site-watch.ts'
import { testDatabase } from '../../support/databases.ts'
import { eventually } from '../../support/processes.ts'

const clock = createSystemClock()
const alone: SiteState = { role: 'alone', intake: 'open', epoch: 1, lineage: null, leader: null }
let postgres: Postgres | undefined
let watches: SiteWatch[] = []

afterEach(async () => {
  for (const watch of watches.splice(0)) await watch.stop()
  await postgres?.close()
  postgres = undefined
})

const watchOf = (site: Pick<Site, 'read'>, errors: unknown[] = []): SiteWatch => {
  const watch = createSiteWatch({ site, clock, everyMs: 10, onError: (error) => void errors.push(error) })
  watches.push(watch)
  return watch
}

describe('the watch of the site', () => {
  it('knows the state when it has started, and tells each change once', async () => {
    const { url } = await testDatabase()
    postgres = createPostgres({ url, max: 3, applicationName: 'test', onError: () => undefined })
    const site = createSite({ postgres })
    const watch = watchOf(site)
    const told: string[] = []
    const end = watch.onChange(({ role, intake }) => void told.push(`${role} ${intake}`))
    expect(watch.state).toBeUndefined()
    await watch.start()
    expect(watch.state).toEqual(alone)
    await site.lead()
    await eventually(async () => expect(watch.state?.role).toBe('leader'))
    await site.close(5_000)
    expect(await watch.refresh()).toMatchObject({ intake: 'closed' })
    end()
    await site.reopen(1)
    await eventually(async () => expect(watch.state?.intake).toBe('open'))
    expect(told).toEqual(['alone open', 'leader open', 'leader closed'])
  })

  it('keeps the last state while it cannot be read, and starts also then', async () => {
    const errors: unknown[] = []
    let away = true
    let reads = 0
    const read = async () => {
      reads++
      if (away) throw new Error('away')
      return alone
    }
    const watch = watchOf({ read }, errors)
    await watch.start()
    expect(watch.state).toBeUndefined()
    away = false
    await eventually(async () => expect(watch.state).toEqual(alone))
    away = true
    const from = reads
    await eventually(async () => expect(reads).toBeGreaterThan(from + 2))
    expect(watch.state).toEqual(alone)
    expect(errors.length).toBeGreaterThan(1)
    await expect(watch.refresh()).rejects.toThrow('away')
  })

  it('never puts an older reading over a newer one', async () => {
    const slow = Promise.withResolvers<SiteState>()
    const answers = [slow.promise, Promise.resolve({ ...alone, epoch: 2 })]
    const watch = watchOf({ read: () => answers.shift() ?? Promise.resolve({ ...alone, epoch: 2 }) })
    const readings = [watch.refresh(), watch.refresh()]
    slow.resolve(alone)
    expect((await Promise.all(readings)).map(({ epoch }) => epoch)).toEqual([1, 2])
    expect(watch.state?.epoch).toBe(2)
  })

  it('goes on when a listener throws, and may be stopped before it has started', async () => {
    const errors: unknown[] = []
    const watch = watchOf({ read: async () => alone }, errors)
    const told: number[] = []
    watch.onChange(() => {
      throw new Error('listener')
    })
    watch.onChange(({ epoch }) => void told.push(epoch))
    await watch.refresh()
    expect([told, errors.length]).toEqual([[1], 1])
    await watch.stop()
    await watch.start()
  })
})
