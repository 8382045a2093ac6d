import { describe, expect, it } from 'vitest'
import type { FuseView } from '../../../src/domain/sync/sync-view.ts'
import { contentOf, openReplayPair, quarantineOf, type ReplayPair } from './replay-pair.ts'
import { putThing } from './things.ts'

const put = (
  { leader }: ReplayPair,
  count: number,
  owner: string | null,
  prefix = 'thing',
): Promise<unknown> =>
  leader.postgres.query(
    `INSERT INTO things (id, value, owner) SELECT $3 || '-' || i, 'value', $2 FROM generate_series(1, $1::int) i`,
    [count, owner, prefix],
  )

const remove = ({ leader }: ReplayPair, count: number, prefix = 'thing'): Promise<unknown> =>
  leader.postgres.query(
    `DELETE FROM things WHERE id IN (SELECT $2 || '-' || i FROM generate_series(1, $1::int) i)`,
    [count, prefix],
  )

const sizeOf = async ({ replica }: ReplayPair): Promise<number> => (await contentOf(replica)).size

const fusesOf = async ({ leader }: ReplayPair): Promise<FuseView[]> => (await leader.replicas.get('b')).fuses

async function approveAll(pair: ReplayPair): Promise<void> {
  for (const { plan } of await fusesOf(pair)) await pair.leader.replicas.approvePlan('b', plan, 'a person')
  await pair.settle()
}

describe('the fuse', () => {
  it('holds back more than 50 deletes of one account in a window, and nothing else', async () => {
    const pair = await openReplayPair()
    await put(pair, 1_200, 'ann')
    await pair.settle()
    await remove(pair, 1_150)
    await putThing(pair.leader.postgres, 'thing-1200', 'changed')
    await putThing(pair.leader.postgres, 'another', 'new')
    await pair.settle()
    // Upserts have gone on, and so have the cursors.
    const there = await contentOf(pair.replica)
    expect(there.get('thing another')).toBe('{"id":"another","value":"new"}')
    expect(there.get('thing thing-1200')).toBe('{"id":"thing-1200","value":"changed"}')
    expect((await pair.leader.replicas.get('b')).lag.changes).toBe(0)
    const fuses = await fusesOf(pair)
    expect(fuses[0]?.reason).toMatch(/objects of the account ann are deleted at once/)
    expect(fuses[0]?.examples).toHaveLength(5)
    const held = (await quarantineOf(pair.leader)).filter(({ kind }) => kind === 'held')
    expect(there.size + (1_150 - held.length)).toBe(1_201)
    await approveAll(pair)
    expect(await sizeOf(pair)).toBe(51)
    expect(await quarantineOf(pair.leader)).toEqual([])
    expect(await fusesOf(pair)).toEqual([])
  })

  it('holds back what would make more than 200 deletes within an hour', async () => {
    const pair = await openReplayPair()
    await put(pair, 400, null)
    await pair.settle()
    await remove(pair, 300)
    await pair.settle()
    const left = await sizeOf(pair)
    expect(left).toBeGreaterThanOrEqual(200)
    expect(left).toBeLessThan(240)
    const fuses = await fusesOf(pair)
    expect(fuses[0]?.reason).toMatch(/deletes within an hour are more than 200/)
    await approveAll(pair)
    expect(await sizeOf(pair)).toBe(100)
  })

  it('holds back what takes an account of ten objects to none, also across shards', async () => {
    const pair = await openReplayPair()
    await put(pair, 12, 'ann')
    await put(pair, 9, 'bob', 'small')
    await pair.settle()
    await remove(pair, 12)
    await remove(pair, 9, 'small')
    await pair.settle()
    // Of the other account those go that came in a window of their own.
    expect([...(await contentOf(pair.replica)).keys()].filter((key) => key.includes('thing-'))).toHaveLength(
      12,
    )
    expect(await sizeOf(pair)).toBeLessThan(21)
    expect((await fusesOf(pair))[0]?.reason).toBe('all 12 objects of the account ann are deleted')
  })

  it('lets no delete by when the sentinels are not all there', async () => {
    const pair = await openReplayPair()
    await put(pair, 2, 'ann')
    await pair.settle()
    await pair.leader.postgres.query('DELETE FROM sync_sentinels WHERE shard = 3')
    await remove(pair, 1)
    await pair.settle()
    expect(await sizeOf(pair)).toBe(2)
    expect((await fusesOf(pair))[0]?.reason).toMatch(/lost 1 of its 16 sentinels/)
  })

  it('counts neither what retention removes nor deletes of what the replica never had', async () => {
    const pair = await openReplayPair()
    await put(pair, 300, null)
    await pair.leader.sending.sequencer.drain()
    await remove(pair, 300)
    await pair.settle()
    expect(await fusesOf(pair)).toEqual([])
  })

  it('judges a plan anew after 24 hours, and takes no approval for the old one', async () => {
    const pair = await openReplayPair()
    await put(pair, 12, 'ann')
    await pair.settle()
    await remove(pair, 12)
    await pair.settle()
    const plans = await fusesOf(pair)
    expect(plans).toHaveLength(1)
    await pair.leader.postgres.query(`UPDATE replica_fuses SET at = at - interval '25 hours'`)
    await pair.leader.postgres.query(`UPDATE changes SET at = at - interval '25 hours'`)
    await expect(
      pair.leader.replicas.approvePlan('b', plans[0]?.plan ?? '', 'a person'),
    ).rejects.toMatchObject({
      code: 'FUSE_EXPIRED',
    })
    await pair.settle()
    const again = await fusesOf(pair)
    expect(again).toHaveLength(1)
    for (const { plan } of again) expect(plans.map((each) => each.plan)).not.toContain(plan)
    await approveAll(pair)
    expect(await sizeOf(pair)).toBe(0)
  })

  it('does not delete what is back by the time of the approval', async () => {
    const pair = await openReplayPair()
    await put(pair, 12, 'ann')
    await pair.settle()
    await remove(pair, 12)
    await pair.settle()
    await putThing(pair.leader.postgres, 'thing-4', 'back')
    await pair.settle()
    await approveAll(pair)
    expect([...(await contentOf(pair.replica)).values()]).toEqual(['{"id":"thing-4","value":"back"}'])
    expect(await quarantineOf(pair.leader)).toEqual([])
  })

  it('forgets an approval after 24 hours', async () => {
    const pair = await openReplayPair()
    await put(pair, 12, 'ann')
    await pair.settle()
    await remove(pair, 12)
    await pair.settle()
    for (const { plan } of await fusesOf(pair)) await pair.leader.replicas.approvePlan('b', plan, 'a person')
    await pair.leader.postgres.query(
      `UPDATE replica_fuses SET at = at - interval '25 hours', approved_at = approved_at - interval '25 hours'`,
    )
    await pair.settle()
    expect(await sizeOf(pair)).toBe(12)
    expect((await fusesOf(pair)).every(({ approvedAt }) => approvedAt === null)).toBe(true)
  })
})
