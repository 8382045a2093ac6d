import { expect, it } from 'vitest'
import { createSyncLease } from '../../../src/domain/sync/lease.ts'
import { createSyncPrune } from '../../../src/domain/sync/prune.ts'
import { createSeeding } from '../../../src/domain/sync/seeding.ts'
import { createSyncService } from '../../../src/domain/sync/sync-service.ts'
import { atEndOfTest, eventually } from '../../support/processes.ts'
import { clock, log, openSite } from './replay-pair.ts'
import { putThing } from './things.ts'

it('hands everything over again when the site has left and leads anew between two looks', async () => {
  const { postgres, sending, types } = await openSite('a')
  const { site, sequencer } = sending
  await putThing(postgres, 'one', 'value')
  await site.lead()
  const service = createSyncService({
    site,
    lease: createSyncLease({ postgres, clock, holder: 'test' }),
    sequencer,
    seeding: createSeeding({ postgres, types }),
    replay: {
      run: (signal) => new Promise((resolve) => signal.addEventListener('abort', () => resolve())),
      wake: () => undefined,
    },
    prune: createSyncPrune({ postgres }),
    clock,
    log,
  })
  atEndOfTest(() => service.stop())
  await service.start()
  const isNumbered = (): Promise<void> =>
    eventually(
      async () => expect((await postgres.query(`SELECT FROM changes WHERE id = 'one'`)).rowCount).toBe(1),
      { timeoutMs: 10_000 },
    )
  await isNumbered()
  await site.leave()
  await site.lead()
  await isNumbered()
}, 30_000)
