import { describe, expect, it } from 'vitest'
import { createSite } from '../../../src/platform/replication/site.ts'
import { eventually } from '../../support/processes.ts'
import { jobOf, useStage } from './harness.ts'

describe('a run on a site that closes under it', () => {
  const stage = useStage('redis')

  it('uses no attempt: its end is written when the site opens again, and it comes again later', async () => {
    const { queue, run, enqueue, reaches, postgres, lines } = stage()
    const site = createSite({ postgres })
    const { epoch } = await site.lead()
    let runs = 0
    const job = jobOf(
      queue(),
      'writing',
      async () => {
        if (++runs === 1) await site.close(5_000)
        await postgres.query(`INSERT INTO devices (id, shard) VALUES ('d', 0)`)
      },
      { attempts: 1 },
    )
    await run([job])
    const id = await enqueue(job)
    await eventually(async () =>
      expect(lines).toContainEqual(
        expect.objectContaining({
          jobId: id,
          code: 'SITE_CLOSED',
          msg: expect.stringContaining('could not be recorded'),
        }),
      ),
    )
    await site.reopen(epoch)
    expect(await reaches(id, 'delayed')).toMatchObject({ attempts: 0 })
    expect(runs).toBe(1)
  })
})
