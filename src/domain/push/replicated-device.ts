import type { Queryable } from '../../platform/postgres/postgres.ts'
import { accountOf } from '../../platform/replication/account.ts'
import { instantOf, instantText } from '../../platform/replication/instants.ts'
import type { ReplicatedType } from '../../platform/replication/replicated.ts'
import { shardOf } from './shard.ts'

/** A device as sites copy it: its registration. */
interface DeviceContent {
  id: string
  user: string | null
  /** In the order of their bytes. */
  groups: string[]
  transports: TransportContent[]
  /** Keeps the device's token valid on the other site. */
  generation: string
  registeredAt: string
}

interface TransportContent {
  position: number
  kind: string
  address: string
  /** JSON as it was stored. */
  options: string
  /** An answer "gone" that is on its way is told by it from one to an earlier registration. */
  registeredAt: string
  deadAt: string | null
  deadReason: string | null
}

type TransportColumns = [number, string, string, string, string, string | null, string | null]

interface DeviceRow extends Omit<DeviceContent, 'groups' | 'transports'> {
  groups: string[] | null
  transports: TransportColumns[] | null
  [column: string]: unknown
}

const readText = `
  SELECT d.id, d.user_id AS user, d.generation::text AS generation, ${instantText('d.registered_at')} AS "registeredAt",
    (SELECT json_agg(g.group_id ORDER BY g.group_id COLLATE "C") FROM device_groups g WHERE g.device = d.id) AS groups,
    (SELECT json_agg(json_build_array(t.position, t.kind, t.address, t.options::text,
        ${instantText('t.registered_at')}, ${instantText('t.dead_at')}, t.dead_reason) ORDER BY t.position)
      FROM transports t WHERE t.device = d.id) AS transports
  FROM devices d WHERE d.id = ANY ($1)`

const applyText = `
  WITH device AS (
    INSERT INTO devices (id, shard, user_id, generation, registered_at) VALUES ($1, $2, $3, $4, ${instantOf('$5')})
    ON CONFLICT (id) DO UPDATE SET (user_id, generation, registered_at)
      = (excluded.user_id, excluded.generation, excluded.registered_at)
  ), left_groups AS (
    DELETE FROM device_groups WHERE device = $1 AND group_id <> ALL ($6::text[])
  ), joined_groups AS (
    INSERT INTO device_groups (device, group_id) SELECT $1, unnest($6::text[]) ON CONFLICT DO NOTHING
  ), dropped_transports AS (
    DELETE FROM transports WHERE device = $1 AND position <> ALL ($7::smallint[])
  )
  INSERT INTO transports (device, position, kind, address, options, registered_at, dead_at, dead_reason)
  SELECT $1, t.position, t.kind, t.address, t.options::json, ${instantOf('t.registered_at')}, ${instantOf('t.dead_at')},
    t.dead_reason
  FROM unnest($7::smallint[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[])
    AS t (position, kind, address, options, registered_at, dead_at, dead_reason)
  ON CONFLICT (device, position) DO UPDATE SET (kind, address, options, registered_at, dead_at, dead_reason)
    = (excluded.kind, excluded.address, excluded.options, excluded.registered_at, excluded.dead_at, excluded.dead_reason)`

/**
 * Devices, with their groups and transports. Not copied: who listens, the flood clock, how quickly the device comes
 * back, and the numbers of deliveries. Those of a site that opened after another one lie above whatever that one can
 * have given (deliveryFloor in fetch-rows.ts), so a cursor of there confirms nothing here.
 */
export function createReplicatedDevice(): ReplicatedType {
  return {
    type: 'device',
    absentKind: 'delete',
    read: async (ids, database) => {
      const { rows } = await database.query<DeviceRow>({
        name: 'replicated-device-read',
        text: readText,
        values: [ids],
      })
      return new Map(rows.map((row) => [row.id, { content: contentOf(row), account: accountOfDevice(row) }]))
    },
    scan: async (after, limit, database) => {
      const { rows } = await database.query<{ id: string }>(
        `SELECT id FROM devices WHERE id COLLATE "C" > $1 ORDER BY id COLLATE "C" LIMIT $2`,
        [after ?? '', limit],
      )
      return rows.map(({ id }) => id)
    },
    apply: ({ content }, client) => apply(JSON.parse(content) as DeviceContent, client),
    // What is open for it is told push by push.
    remove: async (id, client) => {
      await client.query('DELETE FROM devices WHERE id = $1', [id])
    },
  }
}

const accountOfDevice = ({ id, user }: { id: string; user: string | null }): string =>
  user === null ? accountOf('device', id) : accountOf('user', user)

const contentOf = ({ id, user, groups, transports, generation, registeredAt }: DeviceRow): string =>
  JSON.stringify({
    id,
    user,
    groups: groups ?? [],
    transports: (transports ?? []).map(transportOf),
    generation,
    registeredAt,
  } satisfies DeviceContent)

const transportOf = (columns: TransportColumns): TransportContent => {
  const [position, kind, address, options, registeredAt, deadAt, deadReason] = columns
  return { position, kind, address, options, registeredAt, deadAt, deadReason }
}

async function apply(device: DeviceContent, client: Queryable): Promise<void> {
  const { id, user, groups, transports, generation, registeredAt } = device
  await client.query({
    name: 'replicated-device-apply',
    text: applyText,
    values: [
      id,
      shardOf(id),
      user,
      generation,
      registeredAt,
      groups,
      transports.map((each) => each.position),
      transports.map((each) => each.kind),
      transports.map((each) => each.address),
      transports.map((each) => each.options),
      transports.map((each) => each.registeredAt),
      transports.map((each) => each.deadAt),
      transports.map((each) => each.deadReason),
    ],
  })
}
