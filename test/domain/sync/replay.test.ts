import { describe, expect, it } from 'vitest'
import { codeOf } from '../../../src/core/errors.ts'
import type { RemoteSite } from '../../../src/domain/sync/remote-site.ts'
import { retryDue } from '../../../src/domain/sync/repair.ts'
import { advance } from '../../../src/domain/sync/replay-shard.ts'
import { SITE_UNREACHABLE } from '../../../src/platform/replication/client-errors.ts'
import {
  contentOf,
  makeDue,
  openReplayPair,
  pastTheFence,
  quarantineOf,
  type ReplayPair,
} from './replay-pair.ts'
import { putThing } from './things.ts'

const insertThings = `INSERT INTO things (id, value, owner) SELECT 'thing-' || i, 'value ' || i, 'owner-' || i % 7
  FROM generate_series($1::int, $2::int) i`

async function expectEqual({ leader, replica }: ReplayPair): Promise<void> {
  const [ours, theirs] = await Promise.all([contentOf(leader), contentOf(replica)])
  expect(theirs).toEqual(ours)
}

const cutting = (
  remote: RemoteSite,
  when: 'before' | 'after',
  nth: number,
): { remote: RemoteSite; isCut(): boolean } => {
  let calls = 0
  const cut = (): never => {
    throw SITE_UNREACHABLE({ site: 'there', reason: 'cut by the test' })
  }
  const wrap =
    <A extends unknown[], R>(call: (...args: A) => Promise<R>) =>
    async (...args: A): Promise<R> => {
      const isMine = ++calls === nth
      if (isMine && when === 'before') cut()
      const answer = await call(...args)
      if (isMine) cut()
      return answer
    }
  return {
    isCut: () => calls >= nth,
    remote: { ...remote, hello: wrap(remote.hello), plan: wrap(remote.plan), apply: wrap(remote.apply) },
  }
}

describe('replay', () => {
  it('brings an object that changed and changed back before it was numbered again', async () => {
    const pair = await openReplayPair()
    const { postgres } = pair.leader
    await putThing(postgres, 'one', 'A')
    await pair.settle()
    const link = await pair.link()
    const head = async (): Promise<void> => {
      for (const [shard, pos] of (await pair.leader.sending.sequencer.heads()).entries()) {
        while (await advance(link, shard, pos));
      }
    }
    await putThing(postgres, 'one', 'B')
    await pair.leader.sending.sequencer.drain()
    // Numbered as B, sent as C, and B again before C could be numbered.
    await putThing(postgres, 'one', 'C')
    await head()
    expect(await contentOf(pair.replica)).toEqual(new Map([['thing one', '{"id":"one","value":"C"}']]))
    await putThing(postgres, 'one', 'B')
    await pair.settle(link)
    await expectEqual(pair)
  })

  it('brings what was there before, what comes, what changes and what goes', async () => {
    const pair = await openReplayPair()
    await pair.leader.postgres.query(insertThings, [1, 1_200])
    await pair.settle()
    await expectEqual(pair)
    await pair.leader.postgres.query(`UPDATE things SET value = value || '!' WHERE id LIKE 'thing-1%'`)
    await pair.leader.postgres.query(`DELETE FROM things WHERE id IN ('thing-5', 'thing-6')`)
    await pair.settle()
    await expectEqual(pair)
    expect((await contentOf(pair.replica)).size).toBe(1_198)
    const { rows } = await pair.replica.postgres.query(
      `SELECT id, reason, content FROM sync_trash ORDER BY id`,
    )
    expect(rows).toEqual([
      { id: 'thing-5', reason: 'deleted', content: '{"id":"thing-5","value":"value 5"}' },
      { id: 'thing-6', reason: 'deleted', content: '{"id":"thing-6","value":"value 6"}' },
    ])
    expect(await pair.verify(true)).toMatchObject({
      objects: 1_198,
      differing: 0,
      unknown: 0,
      fromRows: true,
    })
  })

  it('goes on from the cursor wherever the line is cut, before a request or after it', async () => {
    const pair = await openReplayPair()
    let cuts = 0
    for (const when of ['before', 'after'] as const) {
      for (let nth = 1; ; nth += 2) {
        await pair.leader.postgres.query(insertThings, [++cuts * 100, cuts * 100 + 9])
        const line = cutting(pair.remote, when, nth)
        const end = await pair
          .link(line.remote)
          .then((link) => pair.settle(link))
          .catch((error: unknown) => codeOf(error))
        expect(end).toBe(line.isCut() ? 'SITE_UNREACHABLE' : undefined)
        if (!line.isCut()) break
      }
    }
    expect(cuts).toBeGreaterThan(15)
    await pair.settle()
    await expectEqual(pair)
    expect(await quarantineOf(pair.leader)).toEqual([])
    expect(await pair.verify()).toMatchObject({ differing: 0 })
  })

  it('finds what failed although the answer that told of it was lost', async () => {
    const pair = await openReplayPair()
    await poison(pair, 'thing-3')
    await pair.leader.postgres.query(insertThings, [1, 20])
    const losing: RemoteSite = {
      ...pair.remote,
      apply: async (speaker, request) => {
        const answer = await pair.remote.apply(speaker, request)
        if (request.objects.some(({ id }) => id === 'thing-3')) {
          throw SITE_UNREACHABLE({ site: 'there', reason: 'cut by the test' })
        }
        return answer
      },
    }
    const lost = pair.link(losing).then((link) => pair.settle(link))
    await expect(lost).rejects.toMatchObject({ code: 'SITE_UNREACHABLE' })
    expect(await quarantineOf(pair.leader)).toEqual([])
    await pair.settle()
    expect(await quarantineOf(pair.leader)).toEqual([{ id: 'thing-3', kind: 'failed' }])
    await heal(pair)
    await makeDue(pair.leader)
    await pair.settle()
    await expectEqual(pair)
    expect(await quarantineOf(pair.leader)).toEqual([])
  })

  it('goes back with a replica that was restored from a back-up', async () => {
    const pair = await openReplayPair()
    await pair.leader.postgres.query(insertThings, [1, 100])
    await pair.settle()
    await putThing(pair.leader.postgres, 'thing-1', 'later')
    await pair.settle()
    // As if it had never got anything.
    await pastTheFence(pair.replica, 'DELETE FROM things')
    await pastTheFence(pair.replica, 'DELETE FROM changes')
    await pastTheFence(pair.replica, 'UPDATE sync_cursors SET pos = 0')
    await pair.settle()
    await expectEqual(pair)
    expect(await pair.verify(true)).toMatchObject({ differing: 0 })
  })

  it('is not harmed by two that send at once', async () => {
    const pair = await openReplayPair()
    await pair.leader.postgres.query(insertThings, [1, 400])
    await pair.settle(await pair.link())
    const links = [await pair.link(), await pair.link(), await pair.link()]
    for (let round = 0; round < 3; round++) {
      await pair.leader.postgres.query(`UPDATE things SET value = 'round ' || $1::int`, [round])
      await Promise.all(links.map((link) => pair.settle(link)))
    }
    await expectEqual(pair)
    expect(await quarantineOf(pair.leader)).toEqual([])
    expect(await pair.verify(true)).toMatchObject({ differing: 0 })
  })

  it('sets a poisonous object aside, brings the rest, and the object itself when the cause is gone', async () => {
    const pair = await openReplayPair()
    await poison(pair, 'thing-7')
    await pair.leader.postgres.query(insertThings, [1, 100])
    await pair.settle()
    expect((await contentOf(pair.replica)).size).toBe(99)
    expect(await quarantineOf(pair.leader)).toEqual([{ id: 'thing-7', kind: 'failed' }])
    const { quarantine } = await pair.leader.replicas.get('b')
    expect(quarantine.first[0]).toMatchObject({ id: 'thing-7', reason: 'poisoned by the test', tries: 0 })
    await makeDue(pair.leader)
    expect(await retryDue(await pair.link())).toBe(1)
    expect((await pair.leader.replicas.get('b')).quarantine.first[0]).toMatchObject({ tries: 1 })
    await heal(pair)
    await makeDue(pair.leader)
    await retryDue(await pair.link())
    await expectEqual(pair)
    expect(await quarantineOf(pair.leader)).toEqual([])
  })

  it('never writes an older content over a newer one when an object is tried again late', async () => {
    const pair = await openReplayPair()
    await putThing(pair.leader.postgres, 'one', 'old')
    await pair.settle()
    const link = await pair.link()
    const { rows } = await pair.leader.postgres.query<{ shard: number; pos: string; hash: string }>(
      `SELECT shard, pos, hash FROM changes WHERE id = 'one'`,
    )
    const [row] = rows
    await putThing(pair.leader.postgres, 'one', 'new')
    await pair.settle()
    const { results } = await pair.remote.apply(link.speaker, {
      shard: row?.shard ?? 0,
      window: null,
      objects: [
        {
          type: 'thing',
          id: 'one',
          pos: Number(row?.pos),
          kind: 'upsert',
          hash: row?.hash ?? '',
          account: null,
          content: '{"id":"one","value":"old"}',
          parts: [],
          policy: 'report',
        },
      ],
    })
    expect(results).toEqual([{ state: 'stale' }])
    await expectEqual(pair)
  })
})

describe('an object that somebody changed on the replica', () => {
  async function changed(): Promise<ReplayPair> {
    const pair = await openReplayPair()
    await putThing(pair.leader.postgres, 'one', 'first')
    await pair.settle()
    await pastTheFence(pair.replica, `UPDATE things SET value = 'by hand' WHERE id = 'one'`)
    await putThing(pair.leader.postgres, 'one', 'second')
    return pair
  }
  const valueOf = async ({ replica }: ReplayPair): Promise<string | undefined> => {
    const { rows } = await replica.postgres.query<{ value: string }>(
      `SELECT value FROM things WHERE id = 'one'`,
    )
    return rows[0]?.value
  }
  const trashOf = async ({ replica }: ReplayPair) => {
    const { rows } = await replica.postgres.query<{ reason: string; content: string }>(
      'SELECT reason, content FROM sync_trash',
    )
    return rows
  }
  const found = '{"id":"one","value":"by hand"}'

  it('is left alone and counted under `report`, and mended when a person says so', async () => {
    const pair = await changed()
    await pair.settle()
    expect(await valueOf(pair)).toBe('by hand')
    expect(await quarantineOf(pair.leader)).toEqual([{ id: 'one', kind: 'mismatch' }])
    const { mismatches } = await pair.leader.replicas.approveMismatches('b', 'keep')
    expect(mismatches).toMatchObject({ mended: 1 })
    expect(await valueOf(pair)).toBe('second')
    expect(await trashOf(pair)).toEqual([{ reason: 'conflict', content: found }])
    expect(await quarantineOf(pair.leader)).toEqual([])
  })

  it.each([
    ['replace', 'replaced'],
    ['keep', 'conflict'],
  ] as const)('goes to the trash under `%s`', async (policy, reason) => {
    const pair = await changed()
    await pair.settle(await pair.link(pair.remote, { '*': 'report', thing: policy }))
    expect(await valueOf(pair)).toBe('second')
    expect(await trashOf(pair)).toEqual([{ reason, content: found }])
    expect(await quarantineOf(pair.leader)).toEqual([])
  })

  it('is no mismatch when it is as the leader has it', async () => {
    const pair = await changed()
    await pastTheFence(pair.replica, `UPDATE things SET value = 'second' WHERE id = 'one'`)
    await pair.settle()
    expect(await quarantineOf(pair.leader)).toEqual([])
    expect(await pair.verify(true)).toMatchObject({ differing: 0 })
  })
})

describe('verification', () => {
  it('finds a byte that was changed by hand, a row that was removed and one that was added', async () => {
    const pair = await openReplayPair()
    await pair.leader.postgres.query(insertThings, [1, 300])
    await pair.settle()
    await pastTheFence(pair.replica, `UPDATE things SET value = value || '.' WHERE id = 'thing-10'`)
    await pastTheFence(pair.replica, `DELETE FROM things WHERE id = 'thing-11'`)
    await pastTheFence(pair.replica, `INSERT INTO things VALUES ('stranger', 'x')`)
    // The log of the replica says nothing of it.
    expect(await pair.verify(false)).toMatchObject({ differing: 0 })
    expect(await pair.verify(true)).toMatchObject({ differing: 3, mended: 1, unknown: 1 })
    expect(await quarantineOf(pair.leader)).toEqual([{ id: 'thing-10', kind: 'mismatch' }])
    const there = await contentOf(pair.replica)
    expect(there.get('thing thing-11')).toBe('{"id":"thing-11","value":"value 11"}')
    // Absence never deletes.
    expect(there.has('thing stranger')).toBe(true)
  })

  it('compares at equal positions, and sends again what differs', async () => {
    const pair = await openReplayPair()
    await pair.leader.postgres.query(insertThings, [1, 300])
    await pair.settle()
    await pastTheFence(pair.replica, `DELETE FROM changes WHERE id IN ('thing-1', 'thing-2')`)
    await pastTheFence(pair.replica, `DELETE FROM things WHERE id = 'thing-1'`)
    expect(await pair.verify(false)).toMatchObject({ differing: 2, mended: 1 })
    expect(await pair.verify(true)).toMatchObject({ differing: 0 })
    await expectEqual(pair)
  })

  it('holds while others write', async () => {
    const pair = await openReplayPair()
    await pair.leader.postgres.query(insertThings, [1, 200])
    await pair.settle()
    let over = false
    const writing = (async () => {
      for (let n = 0; !over; n++) await putThing(pair.leader.postgres, `thing-${1 + (n % 200)}`, `again ${n}`)
    })()
    try {
      for (let round = 0; round < 2; round++) expect(await pair.verify(true)).toMatchObject({ differing: 0 })
    } finally {
      over = true
      await writing
    }
    await pair.settle()
    await expectEqual(pair)
  })

  it('numbers what was written on the leader past its triggers', async () => {
    const pair = await openReplayPair()
    await putThing(pair.leader.postgres, 'one', 'first')
    await pair.settle()
    await pastTheFence(pair.leader, `UPDATE things SET value = 'unseen' WHERE id = 'one'`)
    await pair.verify(true)
    await pair.settle()
    await expectEqual(pair)
    expect((await contentOf(pair.replica)).get('thing one')).toBe('{"id":"one","value":"unseen"}')
  })
})

/** The replica refuses to write it. */
async function poison({ replica }: ReplayPair, id: string): Promise<void> {
  await replica.postgres.query(`
    CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'poisoned by the test'; END $$;
    CREATE TRIGGER poison BEFORE INSERT ON things FOR EACH ROW WHEN (NEW.id = '${id}') EXECUTE FUNCTION poison()`)
}

const heal = ({ replica }: ReplayPair): Promise<unknown> =>
  replica.postgres.query('DROP TRIGGER poison ON things')
