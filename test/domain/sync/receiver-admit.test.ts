import { expect, it } from 'vitest'
import { codeOf } from '../../../src/core/errors.ts'
import { typesByName } from '../../../src/domain/sync/judge.ts'
import { applyObjects } from '../../../src/domain/sync/receiver-apply.ts'
import { protocol, shards } from '../../../src/domain/sync/wire.ts'
import { createPostgres } from '../../../src/platform/postgres/postgres.ts'
import { createSite } from '../../../src/platform/replication/site.ts'
import { testDatabase } from '../../support/databases.ts'
import { atEndOfTest } from '../../support/processes.ts'

const lineage = '00000000-0000-4000-8000-000000000001'

it('applies all shards at once though each brings the same higher epoch', async () => {
  const { url } = await testDatabase()
  const postgres = createPostgres({
    url,
    max: shards,
    applicationName: 'test',
    onError: () => undefined,
  })
  atEndOfTest(() => postgres.close())
  const site = createSite({ postgres })
  await site.follow({ lineage, epoch: 1, leader: 'a' })
  // All connections are open, so that the requests begin together.
  await Promise.all(Array.from({ length: shards }, () => postgres.query('SELECT pg_sleep(0.05)')))
  const apply = (shard: number, epoch: number) =>
    applyObjects(
      { types: typesByName([]), postgres },
      { protocol, lineage, epoch, shard, window: { from: epoch - 2, to: epoch - 1 }, objects: [] },
    ).then(({ cursor }) => cursor, codeOf)
  for (let epoch = 2; epoch < 12; epoch++) {
    const answers = await Promise.all(Array.from({ length: shards }, (_each, shard) => apply(shard, epoch)))
    expect(answers).toEqual(Array.from({ length: shards }, () => epoch - 1))
    expect((await site.read()).epoch).toBe(epoch)
  }
  expect(await apply(0, 3)).toBe('EPOCH_STALE')
}, 30_000)
