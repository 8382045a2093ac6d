import { randomBytes } from 'node:crypto'
import { buffer } from 'node:stream/consumers'
import { describe, expect, it } from 'vitest'
import type { Service } from '../../../src/core/lifecycle.ts'
import type { Bodies } from '../../../src/domain/bodies/bodies.ts'
import { createPostgresStore } from '../../../src/domain/state/stores/postgres.ts'
import { createSyncLease } from '../../../src/domain/sync/lease.ts'
import { createSyncPrune } from '../../../src/domain/sync/prune.ts'
import type { RemoteSite } from '../../../src/domain/sync/remote-site.ts'
import { createReplay } from '../../../src/domain/sync/replay.ts'
import { createSeeding } from '../../../src/domain/sync/seeding.ts'
import { createSyncService } from '../../../src/domain/sync/sync-service.ts'
import type { Postgres } from '../../../src/platform/postgres/postgres.ts'
import { SITE_REFUSED, SITE_UNREACHABLE } from '../../../src/platform/replication/client-errors.ts'
import { atEndOfTest, eventually } from '../../support/processes.ts'
import { createFiveTypes, putBody, putDevices, putJobs, putPushes, putStates } from './five-types.ts'
import {
  clock,
  contentOf,
  log,
  makeDue,
  openReplayPair,
  quarantineOf,
  type ReplayPair,
  remoteOf,
  verifying,
  type WebSite,
} from './replay-pair.ts'
import { putThing } from './things.ts'

interface Told {
  superseded: { replica: string; epoch: number }[]
}

/** What a worker process runs. */
function serve(leader: WebSite, replica: WebSite, holder: string): { service: Service; told: Told } {
  const { postgres, types, sending } = leader
  const told: Told = { superseded: [] }
  const seeding = createSeeding({ postgres, types })
  const service = createSyncService({
    site: sending.site,
    lease: createSyncLease({ postgres, clock, holder }),
    sequencer: sending.sequencer,
    seeding,
    replay: createReplay({
      ...sending,
      ...verifying(leader),
      connect: () => remoteOf(replica),
      isSeeded: () => seeding.isDone(),
      onSuperseded: async (seen) => void told.superseded.push(seen),
    }),
    prune: createSyncPrune({ postgres }),
    clock,
    log,
  })
  atEndOfTest(() => service.stop())
  return { service, told }
}

const isEven = ({ leader }: ReplayPair): Promise<void> =>
  eventually(
    async () => {
      const { lag } = await leader.replicas.get('b')
      const { site } = await leader.replicas.list()
      if (!site.seeding.done || site.pending.changes + lag.changes > 0)
        throw new Error(`behind: ${JSON.stringify({ site, lag })}`)
    },
    { timeoutMs: 60_000, everyMs: 50 },
  )

describe('the service that replays', () => {
  it('ends equal with all five types under concurrent writes, in two processes', async () => {
    const opened = new Map<Postgres, Bodies>()
    const pair = await openReplayPair(createFiveTypes(opened))
    const { leader, replica } = pair
    const { postgres } = leader
    const [bodies, there] = [opened.get(postgres), opened.get(replica.postgres)]
    if (!bodies || !there) throw new Error('no bodies')
    // Before anything is sent, and while it is.
    await putDevices(postgres, 60, 'early-')
    await putJobs(postgres, 500)
    const { id } = await putBody(bodies, 1_500_000)
    const services = ['one', 'two'].map((holder) => serve(leader, replica, holder).service)
    await Promise.all(services.map((each) => each.start()))
    const rounds = Array.from({ length: 6 }, (_each, round) => round)
    for (const round of rounds) {
      await putDevices(postgres, 20, `late-${round}-`)
      await Promise.all([
        putJobs(postgres, 100),
        putPushes(postgres, 40, `late-${round}-7`),
        putStates(postgres, `phone-${round}`, 4),
        putBody(bodies, 20_000),
        postgres.query(`UPDATE jobs SET outcome = 'completed', finished_at = now() WHERE random() < 0.3`),
        postgres.query(`UPDATE devices SET generation = generation + 1 WHERE random() < 0.3`),
        postgres.query(`DELETE FROM devices WHERE id = $1`, [`early-${round + 1}`]),
      ])
    }
    await isEven(pair)
    // A push may have come before its device, and is tried again.
    await makeDue(leader)
    await eventually(async () => expect(await quarantineOf(leader)).toEqual([]), { timeoutMs: 30_000 })
    const [ours, theirs] = await Promise.all([contentOf(leader), contentOf(replica)])
    expect(ours.size).toBeGreaterThan(1_400)
    expect(theirs).toEqual(ours)
    await Promise.all(services.map((each) => each.stop()))
    expect(await pair.verify(true)).toMatchObject({ differing: 0, fromRows: true })
    const { stream } = await there.get(id)
    expect((await buffer(stream)).length).toBe(1_500_000)
  }, 60_000)

  it('brings a device whose states are more than a request can hold, also after a cut between its parts', async () => {
    const pair = await openReplayPair(createFiveTypes(new Map()))
    const { postgres } = pair.leader
    const store = createPostgresStore({ database: postgres, place: 'test:' })
    for (let counter = 1; counter <= 5; counter++) {
      await store.set('phone', { type: '', uuid: 'large', counter }, randomBytes(4_500_000), {})
    }
    let sent = 0
    const cut: RemoteSite = {
      ...pair.remote,
      parts: async (...args) => {
        if (++sent === 3) throw SITE_UNREACHABLE({ site: 'there', reason: 'cut by the test' })
        return pair.remote.parts(...args)
      },
    }
    await expect(pair.link(cut).then((link) => pair.settle(link))).rejects.toMatchObject({
      code: 'SITE_UNREACHABLE',
    })
    await pair.settle()
    expect(await contentOf(pair.replica)).toEqual(await contentOf(pair.leader))
    const { rows } = await pair.replica.postgres.query<{ states: number; waiting: number }>(
      'SELECT (SELECT count(*)::int FROM states) AS states, (SELECT count(*)::int FROM sync_parts) AS waiting',
    )
    expect(rows).toEqual([{ states: 5, waiting: 0 }])
    expect(await quarantineOf(pair.leader)).toEqual([])
  }, 60_000)

  it('sends the rest while the stores of bodies over there are away', async () => {
    const opened = new Map<Postgres, Bodies>()
    const pair = await openReplayPair(createFiveTypes(opened))
    const { postgres } = pair.leader
    const bodies = opened.get(postgres)
    if (!bodies) throw new Error('no bodies')
    const { id } = await putBody(bodies, 1_000)
    await putJobs(postgres, 50)
    const cause = { status: 503, code: 'BODY_UNAVAILABLE', detail: '', values: {}, retryAfterMs: 1_000 }
    const full: RemoteSite = {
      ...pair.remote,
      upload: () =>
        Promise.reject(SITE_REFUSED({ site: 'there', status: 503, code: cause.code, reason: '' }, { cause })),
    }
    await pair.settle(await pair.link(full))
    expect((await contentOf(pair.replica)).size).toBe(50)
    expect(await quarantineOf(pair.leader)).toEqual([{ id, kind: 'failed' }])
    await makeDue(pair.leader)
    await pair.settle()
    expect(await contentOf(pair.replica)).toEqual(await contentOf(pair.leader))
  }, 60_000)

  it('waits for a replica that is away, says so, and goes on by itself when it is back', async () => {
    const pair = await openReplayPair()
    const { leader, replica } = pair
    // Its answers: as of a site whose database is away.
    await replica.postgres.query('ALTER TABLE sync_cursors RENAME TO hidden')
    const { service } = serve(leader, replica, 'one')
    await service.start()
    await putThing(leader.postgres, 'one', 'value')
    await eventually(async () => expect((await leader.replicas.get('b')).error).not.toBeNull(), {
      timeoutMs: 20_000,
    })
    await replica.postgres.query('ALTER TABLE hidden RENAME TO sync_cursors')
    await isEven(pair)
    await eventually(async () => expect((await leader.replicas.get('b')).error).toBeNull(), {
      timeoutMs: 20_000,
    })
    expect(await contentOf(replica)).toEqual(await contentOf(leader))
  }, 60_000)

  it('sends nothing while it is paused, and verifies when it is asked to', async () => {
    const pair = await openReplayPair()
    const { leader, replica } = pair
    const { service } = serve(leader, replica, 'one')
    await leader.replicas.pause('b')
    await service.start()
    await putThing(leader.postgres, 'one', 'value')
    await eventually(async () => expect((await leader.replicas.get('b')).lag.changes).toBe(1), {
      timeoutMs: 20_000,
    })
    expect((await contentOf(replica)).size).toBe(0)
    await leader.replicas.resume('b')
    await isEven(pair)
    await leader.replicas.verify('b')
    await eventually(
      async () =>
        expect(await leader.replicas.get('b')).toMatchObject({
          verifyWantedAt: null,
          verified: { objects: 1, differing: 0, fromRows: true },
        }),
      { timeoutMs: 20_000 },
    )
  }, 60_000)

  it('pauses a replica that has what was never sent, before the head passes its position', async () => {
    const pair = await openReplayPair()
    const { leader, replica } = pair
    await replica.postgres.query('UPDATE sync_cursors SET pos = 1000')
    const { service } = serve(leader, replica, 'one')
    await service.start()
    await eventually(
      async () =>
        expect(await leader.replicas.get('b')).toMatchObject({
          paused: true,
          error: { code: 'REPLICA_DIVERGED' },
        }),
      { timeoutMs: 20_000 },
    )
  }, 60_000)

  it('tells when a replica has seen a higher epoch', async () => {
    const pair = await openReplayPair()
    const { leader, replica } = pair
    const { lineage } = await leader.sending.site.read()
    await replica.sending.site.promote({ epoch: 2, lineage: lineage ?? '' })
    const { service, told } = serve(leader, replica, 'one')
    await service.start()
    await eventually(async () => expect(told.superseded[0]).toEqual({ replica: 'b', epoch: 2 }), {
      timeoutMs: 20_000,
    })
    expect((await leader.replicas.get('b')).error).toMatchObject({ code: 'EPOCH_STALE' })
  }, 60_000)
})
