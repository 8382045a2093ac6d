import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { claimSends } from '../../../src/domain/push/claim-rows.ts'
import { createPushes } from '../../../src/domain/push/delivery-log.ts'
import { createReplicatedPush } from '../../../src/domain/push/replicated-push.ts'
import { allShards } from '../../../src/domain/push/shard.ts'
import {
  applying,
  exerciseReplicatedType,
  oddInstant,
  oddJson,
  oddText,
  rowsWithout,
  type TypeUnderTest,
  twoSites,
} from '../../contracts/replicated.ts'

const orNone = <T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | null> => fc.option(arbitrary, { nil: null })
const log = fc.array(fc.record({ name: oddText(), at: fc.nat(), reason: oddText() }), { maxLength: 3 })

const common = {
  device: oddText(30),
  priority: fc.boolean(),
  topic: orNone(oddText()),
  payload: orNone(oddJson),
  accepted_at: oddInstant,
  expires_at: oddInstant,
  due_at: oddInstant,
  delivered_at: orNone(oddInstant),
  hop: fc.nat(9),
  attempts: fc.nat(9),
  escalate_ms: orNone(fc.nat()),
  sent_at: orNone(oddInstant),
  lease: orNone(fc.uuid()),
  send_id: orNone(fc.uuid()),
  collapse: orNone(oddText()),
  log: log.map((entries) => JSON.stringify(entries)),
}
const open = fc.constantFrom('pending', 'delivered', 'due', 'sending', 'sent', 'undeliverable')
const closed = fc.constantFrom('confirmed', 'expired', 'withdrawn', 'replaced')
const pushes = fc.oneof(
  fc.record({ ...common, state: open, closed_at: fc.constant(null) }),
  fc.record({ ...common, state: closed, closed_at: oddInstant }),
)
type Shape = typeof pushes extends fc.Arbitrary<infer Any> ? Any : never

async function create(): Promise<TypeUnderTest<Shape>> {
  const { source, replica, drop } = await twoSites()
  const split = (key: string): [string, string] => [key.slice(0, 36), key.slice(37)]
  return {
    source: { type: createReplicatedPush(), postgres: source },
    replica: { type: createReplicatedPush(), postgres: replica },
    shapes: pushes,
    put: async (shape) => {
      const id = randomUUID()
      const columns = ['id', 'shard', ...Object.keys(shape)]
      await source.query(
        `INSERT INTO pushes (${columns.join()}) VALUES (${columns.map((_column, index) => `$${index + 1}`).join()})`,
        [id, 1, ...Object.values(shape)],
      )
      return `${id}/${shape.device}`
    },
    change: async (key) => {
      await source.query(
        `UPDATE pushes SET hop = hop + 1, log = push_log(log, 'x') WHERE id = $1 AND device = $2`,
        split(key),
      )
    },
    stir: async (key) => {
      const [id, device] = split(key)
      await source.query(
        `UPDATE pushes SET delivered_seq = 5, delivered_at = coalesce(delivered_at, now()), lease = gen_random_uuid(),
           attempts = attempts + 1, state = CASE state WHEN 'pending' THEN 'delivered' WHEN 'due' THEN 'sending' ELSE state END,
           due_at = CASE WHEN state IN ('due', 'sending', 'undeliverable') THEN now() ELSE due_at END,
           log = CASE WHEN state IN ('due', 'sending', 'pending') THEN push_log(log, 'unsent') ELSE log END
         WHERE id = $1 AND device = $2 AND closed_at IS NULL`,
        [id, device],
      )
    },
    destroy: async (key) => {
      await source.query('DELETE FROM pushes WHERE id = $1 AND device = $2', split(key))
    },
    rows: async (key, postgres) => {
      const local = ['shard', 'delivered_seq', 'attempts', 'lease']
      const sql = 'SELECT * FROM pushes WHERE id = $1 AND device = $2'
      const [row = {}] = await rowsWithout(local, postgres, sql, split(key))
      const { state, closed_at: closedAt } = row
      if (closedAt !== null) return [{ ...row, due_at: null, payload: null }]
      if (state === 'sent') return [{ ...row, delivered_at: null }]
      const isDue = state !== 'pending' && state !== 'delivered'
      return [
        {
          ...row,
          delivered_at: null,
          log: null,
          state: isDue ? 'due' : 'pending',
          ...(isDue && { due_at: null }),
        },
      ]
    },
    strangers: [`${randomUUID()}/phone`, randomUUID(), 'no uuid/phone', '/', ''],
    release: drop,
  }
}

exerciseReplicatedType<Shape>('push', create)

describe('a push on a replica', () => {
  const insert = `INSERT INTO pushes (id, device, shard, state, priority, payload, expires_at, due_at, send_id, collapse, lease)
    VALUES ($1, 'phone', 1, $2, true, '"text"', now() + interval '1 h', now() + interval '1 h', $3, 'together', $4)`
  const copyAll = async ({ source, replica }: TypeUnderTest<Shape>): Promise<void> => {
    const ids = await source.type.scan(undefined, 100, source.postgres)
    const images = await source.type.read(ids, source.postgres)
    for (const [id, { content }] of images) {
      await applying(replica.postgres, (client) => replica.type.apply({ id, content, parts: [] }, client))
    }
  }
  const opened = async ({ replica }: TypeUnderTest<Shape>): Promise<void> => {
    await replica.postgres.query(`UPDATE site SET role = 'leader', intake = 'open', epoch = 2`)
    await replica.postgres.query('SELECT change_settle()')
  }

  it('goes on being sent once the site opens, with the id and the key that it had', async () => {
    const made = await create()
    const { source, replica } = made
    const sendId = randomUUID()
    for (const { postgres } of [source, replica]) {
      await applying(postgres, async (client) => {
        await client.query(`INSERT INTO devices (id, shard) VALUES ('phone', 1)`)
        await client.query(`INSERT INTO transports VALUES ('phone', 0, 'stub', 'a', '{}')`)
      })
    }
    await source.postgres.query(insert, [randomUUID(), 'sending', sendId, randomUUID()])
    await copyAll(made)
    await opened(made)
    const { sends } = await claimSends(replica.postgres, {
      shards: allShards,
      maxDevices: 10,
      lease: randomUUID(),
      leaseMs: 6_000,
      flood: { intervalMs: 1_000, burst: 10 },
    })
    expect(sends).toMatchObject([{ device: 'phone', sendId, collapse: 'together', attempt: 1 }])
    await made.release()
  })

  it('stays in its order, before all that is accepted there later', async () => {
    const made = await create()
    const { source, replica } = made
    await source.postgres.query(`SELECT setval('pushes_seq_seq', 5000000)`)
    const ids = Array.from({ length: 5 }, () => randomUUID())
    // The ids are in any order, so the copy is as well.
    for (const id of ids) await source.postgres.query(insert, [id, 'pending', null, null])
    await copyAll(made)
    await opened(made)
    const late = randomUUID()
    await replica.postgres.query(insert, [late, 'pending', null, null])
    const { rows } = await replica.postgres.query<{ id: string }>(
      'SELECT id FROM pushes ORDER BY device, seq',
    )
    expect(rows.map(({ id }) => id)).toEqual([...ids, late])
    const { rows: free } = await replica.postgres.query<{ gap: string }>(
      'SELECT max(seq) - (SELECT max(seq) FROM pushes WHERE id <> $1) AS gap FROM pushes',
      [late],
    )
    expect(Number(free[0]?.gap)).toBeGreaterThan(400_000)
    await made.release()
  })

  it('tells what became of it when it is closed, and has no payload then', async () => {
    const made = await create()
    const { source, replica } = made
    const id = randomUUID()
    await source.postgres.query(insert, [id, 'pending', null, null])
    await copyAll(made)
    await source.postgres.query(
      `UPDATE pushes SET state = 'withdrawn', closed_at = now(), delivered_at = now(), log = push_log(log, 'withdrawn')`,
    )
    await copyAll(made)
    expect(await createPushes(replica.postgres).show(id)).toEqual(
      await createPushes(source.postgres).show(id),
    )
    const { rows } = await replica.postgres.query('SELECT payload FROM pushes')
    expect(rows).toEqual([{ payload: null }])
    await made.release()
  })

  it('takes the number that it has at the source, whatever it had here', async () => {
    const made = await create()
    const { source, replica } = made
    await source.postgres.query(insert, [randomUUID(), 'pending', null, null])
    await copyAll(made)
    await applying(replica.postgres, async (client) => {
      await client.query('UPDATE pushes SET seq = DEFAULT')
    })
    await copyAll(made)
    const seqs = await Promise.all(
      [source, replica].map(({ postgres }) => postgres.query<{ seq: string }>('SELECT seq FROM pushes')),
    )
    expect(seqs[0]?.rows).toEqual(seqs[1]?.rows)
    await made.release()
  })
})
