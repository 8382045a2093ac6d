import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createDeviceTokens } from '../../../src/domain/push/device-token.ts'
import { createDevices } from '../../../src/domain/push/devices.ts'
import { createListenRows } from '../../../src/domain/push/listen-rows.ts'
import { createReplicatedDevice } from '../../../src/domain/push/replicated-device.ts'
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

const transports = fc.record({
  kind: oddText(20),
  address: oddText(500),
  options: oddJson,
  registered_at: oddInstant,
  dead_at: orNone(oddInstant),
  dead_reason: orNone(oddText()),
})
const devices = fc.record({
  // Some with a slash, as which a push's id is told from its device.
  id: oddText(40).map((name) => `${name}${randomUUID()}`),
  user: orNone(oddText()),
  groups: fc.uniqueArray(oddText(), { maxLength: 5 }),
  transports: fc.array(transports, { maxLength: 4 }),
  generation: fc.bigInt({ min: 0n, max: 9_223_372_036_854_775_807n }),
  registered_at: oddInstant,
})

type DeviceShape = typeof devices extends fc.Arbitrary<infer Shape> ? Shape : never

async function create(): Promise<TypeUnderTest<DeviceShape>> {
  const { source, replica, drop } = await twoSites()
  let changes = 0
  return {
    source: { type: createReplicatedDevice(), postgres: source },
    replica: { type: createReplicatedDevice(), postgres: replica },
    shapes: devices,
    put: async ({ id, user, groups, transports: all, generation, registered_at: at }) => {
      await source.transaction(async (client) => {
        await client.query(
          'INSERT INTO devices (id, shard, user_id, generation, registered_at) VALUES ($1, 1, $2, $3, $4)',
          [id, user, generation, at],
        )
        for (const group of groups)
          await client.query('INSERT INTO device_groups VALUES ($1, $2)', [group, id])
        for (const [index, each] of all.entries()) {
          // Places may be left out.
          await client.query('INSERT INTO transports VALUES ($1, $2, $3, $4, $5, $6, $7, $8)', [
            id,
            index * 2,
            ...Object.values(each),
          ])
        }
      })
      return id
    },
    change: async (id: string) => {
      changes += 1
      const ways = [
        `UPDATE devices SET user_id = coalesce(user_id, '') || 'x' WHERE id = $1`,
        `INSERT INTO device_groups SELECT gen_random_uuid(), $1`,
        `INSERT INTO transports SELECT $1, 99, 'stub', 'a', '{}' ON CONFLICT (device, position) DO UPDATE SET dead_at = now()`,
        `UPDATE devices SET generation = (generation + 1) % 1000 WHERE id = $1`,
      ]
      await source.query(ways[changes % ways.length] as string, [id])
    },
    stir: async (id: string) => {
      await source.query(
        `UPDATE devices SET delivery_seq = delivery_seq + 1, answered_seq = 5, reconnect_ms = 1, flood_at = now(),
           listen_id = gen_random_uuid(), listen_node = 'n', seen_at = now() WHERE id = $1`,
        [id],
      )
    },
    destroy: async (id: string) => {
      await source.query('DELETE FROM devices WHERE id = $1', [id])
    },
    rows: async (id: string, postgres) => {
      const local = [
        'shard',
        'delivery_seq',
        'answered_seq',
        'reconnect_ms',
        'flood_at',
        'listen_id',
        'listen_node',
        'seen_at',
      ]
      return [
        ...(await rowsWithout(local, postgres, 'SELECT * FROM devices WHERE id = $1', [id])),
        ...(await rowsWithout([], postgres, 'SELECT * FROM transports WHERE device = $1 ORDER BY position', [
          id,
        ])),
        ...(await rowsWithout(
          [],
          postgres,
          'SELECT * FROM device_groups WHERE device = $1 ORDER BY group_id',
          [id],
        )),
      ]
    },
    strangers: [randomUUID(), ''],
    release: drop,
  }
}

exerciseReplicatedType<DeviceShape>('device', create)

describe('a device on a replica', () => {
  it('keeps its token, its shard and what is local', async () => {
    const { source, replica, release } = await create()
    const tokens = createDeviceTokens('the secret of both sites')
    const here = createDevices({ postgres: source.postgres, tokens })
    const { token } = await here.put('phone', { user: 'u', groups: ['b', 'a'] })
    const copy = async (): Promise<void> => {
      const content = (await source.type.read(['phone'], source.postgres)).get('phone')?.content ?? ''
      await applying(replica.postgres, (client) =>
        replica.type.apply({ id: 'phone', content, parts: [] }, client),
      )
    }
    await copy()
    const local = `delivery_seq = 7, reconnect_ms = 1234`
    await applying(replica.postgres, (client) => client.query(`UPDATE devices SET ${local}`))
    await here.join('c', 'phone')
    await copy()
    const { rows } = await replica.postgres.query<{ generation: string; shard: number }>(
      `SELECT generation::text, shard FROM devices WHERE delivery_seq = 7 AND reconnect_ms = 1234`,
    )
    expect(tokens.issue({ device: 'phone', generation: rows[0]?.generation ?? '' })).toBe(token)
    const shards = await source.postgres.query<{ shard: number }>('SELECT shard FROM devices')
    expect(rows[0]?.shard).toBe(shards.rows[0]?.shard)
    const there = createDevices({ postgres: replica.postgres, tokens })
    expect(await there.get('phone')).toMatchObject({ user: 'u', groups: ['a', 'b', 'c'] })
    await release()
  })

  it('confirms nothing by a cursor of the site that led before, however many that had given', async () => {
    const { replica, release } = await create()
    const { postgres } = replica
    // Opened again: it led once, gave a number then, and others led since.
    await postgres.query(`UPDATE site SET role = 'leader', intake = 'open', epoch = 3`)
    await postgres.query(`INSERT INTO devices (id, shard) VALUES ('phone', 1)`)
    await postgres.query(
      `INSERT INTO pushes (id, device, shard, state, priority, expires_at, due_at, delivered_seq, delivered_at, lease)
       SELECT gen_random_uuid(), 'phone', 1, 'delivered', true, now() + interval '1 h', now() + interval '1 h',
         delivery_seq, now(), gen_random_uuid() FROM devices`,
    )
    await postgres.query('SELECT change_settle()')
    const rows = createListenRows(postgres)
    const listen = async (confirm: number) => {
      const id = randomUUID()
      const registered = await rows.register({
        device: 'phone',
        generation: undefined,
        listen: id,
        node: 'n',
        confirm,
      })
      const position = 'position' in registered ? registered.position : Number.NaN
      const fetched = await rows.fetch({ device: 'phone', listen: id, position })
      return { registered, given: 'rows' in fetched ? fetched.rows : [] }
    }
    const { rows: now } = await postgres.query<{ ms: string }>(
      'SELECT (extract(epoch FROM now()) * 1000)::bigint AS ms',
    )
    // Of the site that led at epoch 2, whose clock was ten hours ahead: a busy device.
    const foreign = Number(now[0]?.ms) + 86_400_000 + 36_000_000
    const first = await listen(foreign)
    expect(first.given).toHaveLength(1)
    // The answer was lost: the client comes again with what it had.
    const again = await listen(foreign)
    expect(again.registered).toMatchObject({ confirmed: 0 })
    expect(again.given).toHaveLength(1)
    expect((await listen(again.given[0]?.seq ?? 0)).registered).toMatchObject({ confirmed: 1 })
    await release()
  })
})
