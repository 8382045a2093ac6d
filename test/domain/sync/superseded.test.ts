import { expect, test } from 'vitest'
import { operator } from '../../runtime/web/web-harness.ts'
import { openPair } from './fail-over-pair.ts'
import { openReplayPair } from './replay-pair.ts'

test('a leader to which a site of a higher epoch says hello closes at once, also when it knows of no other site', async () => {
  const { b, ...pair } = await openPair()
  await pair.failOvers(b).begin({ mode: 'hard', to: 'b', confirm: 'a', actor: 'anna' })
  const { lineage } = await b.site.read()
  const hello = { protocol: 1, lineage, leader: 'a', look: false }
  await expect(b.receiver.hello({ ...hello, epoch: 2 })).rejects.toMatchObject({ code: 'EPOCH_STALE' })
  await expect(b.receiver.hello({ ...hello, epoch: 3, lineage: crypto.randomUUID() })).rejects.toMatchObject({
    code: 'LINEAGE_FOREIGN',
  })
  expect(await b.receiver.hello({ ...hello, epoch: 3, look: true })).toMatchObject({ intake: 'open' })
  expect(await b.site.read()).toMatchObject({ role: 'leader', intake: 'open' })
  await expect(b.receiver.hello({ ...hello, epoch: 3 })).rejects.toMatchObject({ code: 'SITE_LEADS' })
  expect(await b.site.read()).toMatchObject({ role: 'leader', intake: 'closed', epoch: 2 })
})

test('a site that was closed so may be told where the one that leads is', async () => {
  const { leader, replica } = await openReplayPair()
  const { lineage } = await leader.sending.site.read()
  await replica.sending.site.promote({ epoch: 2, lineage: lineage ?? '' })
  const to = { url: replica.url, key: operator }
  await expect(leader.replicas.put('b', to)).rejects.toMatchObject({ code: 'REPLICA_UNUSABLE' })
  await leader.sending.site.close(1_000)
  expect(await leader.replicas.put('b', to)).toMatchObject({ name: 'b', url: replica.url })
  expect(await leader.sending.site.read()).toMatchObject({ role: 'leader', intake: 'closed', epoch: 1 })
})

test('a fail-over that closed nothing opens nothing when it is given up: the site was superseded', async () => {
  const pair = await openPair()
  const { a } = pair
  await a.site.close(1_000)
  await pair.failOvers(a).begin({ mode: 'soft', to: 'b', actor: 'anna' })
  pair.wire.hello = away
  await pair.failOvers(a).abort({ actor: 'bert' })
  expect((await a.rows.list(1))[0]).toMatchObject({ phase: 'aborted', finishedAt: expect.any(Date) })
  expect(await a.site.read()).toMatchObject({ role: 'leader', intake: 'closed' })
})

test('a fail-over that heard once that it was superseded opens nothing, though the other site is silent by then', async () => {
  const pair = await openPair()
  const { a, b } = pair
  await pair.failOvers(a).begin({ mode: 'soft', to: 'b', actor: 'anna' })
  const engine = pair.engine()
  while ((await a.rows.running())?.phase !== 'flushing') await engine.step()
  await pair.failOvers(b).begin({ mode: 'hard', to: 'b', confirm: 'a', actor: 'anna' })
  const { hello } = pair.wire
  pair.wire.hello = async () => {
    pair.wire.hello = away
    return hello()
  }
  while (await engine.step());
  expect((await a.rows.list(1))[0]).toMatchObject({
    phase: 'aborted',
    error: { code: 'FAIL_OVER_SUPERSEDED' },
  })
  expect((await a.site.read()).intake).toBe('closed')
})

const away = async (): Promise<never> => {
  throw new Error('away')
}
