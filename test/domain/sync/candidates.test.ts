import { describe, expect, it } from 'vitest'
import { sha256 } from '../../../src/core/digest.ts'
import { createDigests } from '../../../src/domain/sync/digests.ts'
import { createReceiver } from '../../../src/domain/sync/receiver.ts'
import { type CandidatesAnswer, protocol } from '../../../src/domain/sync/wire.ts'
import { contentOf, log, openReplayPair, type ReplayPair } from './replay-pair.ts'
import { putThing } from './things.ts'

type State = CandidatesAnswer['results'][number]['state']

interface Heir {
  pair: ReplayPair
  /** What the former leader has of these things; null: it deleted it. */
  offer(things: Record<string, string | null>): Promise<Record<string, State>>
  trash(): Promise<{ id: string; reason: string; content: string }[]>
}

const contentFor = (id: string, value: string): string => JSON.stringify({ id, value })

/** The replica has taken over by force, with the things `kept`, `changed` and `gone` as they were. */
async function openHeir(): Promise<Heir> {
  const pair = await openReplayPair()
  for (const id of ['kept', 'changed', 'gone']) await putThing(pair.leader.postgres, id, 'before')
  await pair.settle()
  const { postgres, types, sending } = pair.replica
  const { rows: cursors } = await postgres.query<{ pos: string }>(
    'SELECT pos FROM sync_cursors ORDER BY shard',
  )
  const lostAfter = cursors.map(({ pos }) => Number(pos))
  const { lineage } = await sending.site.read()
  await sending.site.promote({ epoch: 2, lineage: lineage ?? '' })
  const receiver = createReceiver({
    postgres,
    site: sending.site,
    types,
    digests: createDigests(),
    name: 'b',
    version: '1',
    log,
  })
  const offerOne = async (id: string, value: string | null): Promise<State> => {
    const { rows } = await postgres.query<{ shard: number }>('SELECT change_shard($1)::int AS shard', [id])
    const content = value === null ? null : contentFor(id, value)
    const kind = value === null ? ('delete' as const) : ('upsert' as const)
    const hash = content === null ? null : sha256(content)
    const { results } = await receiver.candidates({
      protocol,
      lineage,
      epoch: 2,
      lostAfter,
      shard: rows[0]?.shard ?? 0,
      objects: [{ type: 'thing', id, kind, hash, account: null, content, parts: [] }],
    })
    return results[0]?.state ?? 'failed'
  }
  return {
    pair,
    offer: async (things) => {
      const states: Record<string, State> = {}
      for (const [id, value] of Object.entries(things)) states[id] = await offerOne(id, value)
      return states
    },
    trash: async () => {
      const { rows } = await postgres.query<{ id: string; reason: string; content: string }>(
        'SELECT id, reason, content FROM sync_trash ORDER BY n',
      )
      return rows
    },
  }
}

describe('a candidate of a former leader', () => {
  it('is taken where nobody has touched the object since, and is then a change of this site', async () => {
    const { pair, offer } = await openHeir()
    expect(await offer({ kept: 'later', fresh: 'new' })).toEqual({ kept: 'adopted', fresh: 'adopted' })
    const there = await contentOf(pair.replica)
    expect(there.get('thing kept')).toBe(contentFor('kept', 'later'))
    expect(there.get('thing fresh')).toBe(contentFor('fresh', 'new'))
    const { rows } = await pair.replica.postgres.query('SELECT id FROM change_pending ORDER BY id')
    expect(rows).toEqual([{ id: 'fresh' }, { id: 'kept' }])
    // The answer was lost, before and after it was numbered.
    expect(await offer({ kept: 'later' })).toEqual({ kept: 'current' })
    await pair.replica.sending.sequencer.drain()
    expect(await offer({ kept: 'later', fresh: 'new' })).toEqual({ kept: 'current', fresh: 'current' })
  })

  it('goes to the trash where the object has changed here, numbered or not, and once only', async () => {
    const { pair, offer, trash } = await openHeir()
    await putThing(pair.replica.postgres, 'changed', 'here')
    expect(await offer({ changed: 'there' })).toEqual({ changed: 'conflict' })
    await pair.replica.sending.sequencer.drain()
    expect(await offer({ changed: 'there' })).toEqual({ changed: 'conflict' })
    expect((await contentOf(pair.replica)).get('thing changed')).toBe(contentFor('changed', 'here'))
    expect(await trash()).toEqual([
      { id: 'changed', reason: 'conflict', content: contentFor('changed', 'there') },
    ])
  })

  it('brings nothing back that was deleted here', async () => {
    const { pair, offer, trash } = await openHeir()
    await pair.replica.postgres.query(`DELETE FROM things WHERE id = 'gone'`)
    expect(await offer({ gone: 'there' })).toEqual({ gone: 'deleted' })
    await pair.replica.sending.sequencer.drain()
    expect(await offer({ gone: 'there' })).toEqual({ gone: 'deleted' })
    expect((await contentOf(pair.replica)).has('thing gone')).toBe(false)
    expect(await trash()).toHaveLength(1)
  })

  it('that deletes is followed only where nobody has touched the object, and what goes is in the trash', async () => {
    const { pair, offer, trash } = await openHeir()
    await putThing(pair.replica.postgres, 'changed', 'here')
    expect(await offer({ kept: null, changed: null })).toEqual({ kept: 'adopted', changed: 'conflict' })
    const there = await contentOf(pair.replica)
    expect([there.has('thing kept'), there.has('thing changed')]).toEqual([false, true])
    expect(await trash()).toEqual([{ id: 'kept', reason: 'deleted', content: contentFor('kept', 'before') }])
  })

  it('does not overwrite a change that is committed while it is judged', async () => {
    const { pair, offer } = await openHeir()
    const { postgres } = pair.replica
    let done: Promise<unknown> = Promise.resolve()
    const offered = await postgres.transaction(async (client) => {
      await client.query(`UPDATE things SET value = 'here' WHERE id = 'kept'`)
      // It waits for the row until the end of this transaction.
      const waiting = offer({ kept: 'there' })
      done = waiting
      await client.query('SELECT pg_sleep(0.2)')
      return { waiting }
    })
    await done
    expect(await offered.waiting).toEqual({ kept: 'conflict' })
    expect((await contentOf(pair.replica)).get('thing kept')).toBe(contentFor('kept', 'here'))
  })
})
