import type { Client, Postgres, Queryable } from '../../platform/postgres/postgres.ts'
import type { DeviceTokens } from './device-token.ts'
import { DEVICE_NOT_FOUND } from './errors.ts'
import { shardOf } from './shard.ts'
import type { Transport, TransportKind } from './transport.ts'

/** What a device is registered with. Whatever is undefined stays as it is. */
export interface Registration {
  /** Null takes the user away. */
  user?: string | null
  groups?: string[]
  transports?: Transport[]
}

export interface DeviceView {
  device: string
  user?: string
  groups: string[]
  transports: {
    kind: TransportKind
    /** Shortened: whoever has an address and its keys can send to it. */
    address: string
    registeredAt: string
    deadAt?: string
    deadReason?: string
  }[]
  /** How long it lately took to come back after an answer, ms; the confirmation timeout is twice that. */
  reconnectMs: number
  /** Pushes that are not confirmed, at most 1,000 counted. */
  open: number
  registeredAt: string
  seenAt?: string
}

export interface Devices {
  /** Registers a device, or changes it. The token is the same each time. */
  put(device: string, registration: Registration): Promise<{ device: string; token: string }>
  get(device: string): Promise<DeviceView | undefined>
  /** In order of their ids. */
  list(options: { after?: string; limit: number; user?: string; group?: string }): Promise<DeviceView[]>
  /** Withdraws what is open for it and forgets it; its token is worth nothing from then on. */
  remove(device: string): Promise<boolean>
  /** @throws DEVICE_NOT_FOUND */
  join(group: string, device: string): Promise<void>
  leave(group: string, device: string): Promise<void>
}

export interface DevicesOptions {
  postgres: Postgres
  tokens: DeviceTokens
}

export function createDevices({ postgres, tokens }: DevicesOptions): Devices {
  const list = (where: string, values: unknown[]): Promise<DeviceView[]> =>
    viewDevices(postgres, where, values)
  return {
    put: async (device, registration) => {
      const generation = await postgres.transaction((client) => register(client, device, registration))
      return { device, token: tokens.issue({ device, generation }) }
    },
    get: async (device) => (await list('d.id = $1', [device]))[0],
    list: ({ after = '', limit, user, group }) =>
      list(
        `d.id > $1 AND ($3::text IS NULL OR d.user_id = $3)
           AND ($4::text IS NULL OR EXISTS (SELECT FROM device_groups g WHERE g.device = d.id AND g.group_id = $4))
         ORDER BY d.id LIMIT $2`,
        [after, limit, user ?? null, group ?? null],
      ),
    remove: (device) => postgres.transaction((client) => forget(client, device)),
    join: async (group, device) => {
      const { rowCount } = await postgres.query(
        `INSERT INTO device_groups (group_id, device) SELECT $1, id FROM devices WHERE id = $2
         ON CONFLICT (group_id, device) DO UPDATE SET group_id = excluded.group_id`,
        [group, device],
      )
      if (rowCount === 0) throw DEVICE_NOT_FOUND({ device })
    },
    leave: async (group, device) => {
      await postgres.query('DELETE FROM device_groups WHERE group_id = $1 AND device = $2', [group, device])
    },
  }
}

async function register(client: Client, device: string, registration: Registration): Promise<string> {
  const { user, groups, transports } = registration
  const { rows } = await client.query<{ generation: string }>(
    `INSERT INTO devices AS d (id, shard, user_id) VALUES ($1, $2, $3)
     ON CONFLICT (id) DO UPDATE SET user_id = CASE WHEN $4 THEN excluded.user_id ELSE d.user_id END,
       registered_at = now()
     RETURNING generation::text`,
    [device, shardOf(device), user ?? null, user !== undefined],
  )
  if (groups) await setGroups(client, device, groups)
  if (transports) await setTransports(client, device, transports)
  return rows[0]?.generation ?? ''
}

async function setGroups(client: Client, device: string, groups: string[]): Promise<void> {
  await client.query('DELETE FROM device_groups WHERE device = $1 AND group_id <> ALL ($2::text[])', [
    device,
    groups,
  ])
  await client.query(
    `INSERT INTO device_groups (device, group_id) SELECT DISTINCT $1, g FROM unnest($2::text[]) AS g
     ON CONFLICT DO NOTHING`,
    [device, groups],
  )
}

/**
 * All are written anew, also those that stay: a later registration time is what keeps an address alive when
 * the answer "gone" to an earlier push is still on its way.
 */
async function setTransports(client: Client, device: string, transports: Transport[]): Promise<void> {
  await client.query('DELETE FROM transports WHERE device = $1', [device])
  await client.query(
    `INSERT INTO transports (device, position, kind, address, options)
     SELECT $1, t.position - 1, t.kind, t.address, t.options
       FROM unnest($2::text[], $3::text[], $4::json[]) WITH ORDINALITY AS t(kind, address, options, position)`,
    [
      device,
      transports.map((each) => each.kind),
      transports.map((each) => each.address),
      transports.map((each) => JSON.stringify(each.options)),
    ],
  )
  // What had nowhere to go has a new chance.
  await client.query(
    `UPDATE pushes SET state = 'due', hop = 0, attempts = 0, due_at = now(), send_id = NULL, collapse = NULL
      WHERE device = $1 AND closed_at IS NULL AND state = 'undeliverable' AND expires_at > now()`,
    [device],
  )
}

async function forget(client: Client, device: string): Promise<boolean> {
  const { rowCount } = await client.query('SELECT FROM devices WHERE id = $1 FOR UPDATE', [device])
  await client.query(
    `UPDATE pushes SET state = 'withdrawn', closed_at = now(), log = push_log(log, 'withdrawn', '{"by":"device"}')
      WHERE device = $1 AND closed_at IS NULL`,
    [device],
  )
  await client.query('DELETE FROM devices WHERE id = $1', [device])
  return rowCount === 1
}

interface DeviceRow {
  id: string
  user_id: string | null
  reconnect_ms: number
  registered_at: Date
  seen_at: Date | null
  groups: string[] | null
  transports:
    | { kind: TransportKind; address: string; at: string; dead_at: string | null; why: string | null }[]
    | null
  open: number
}

async function viewDevices(database: Queryable, where: string, values: unknown[]): Promise<DeviceView[]> {
  const { rows } = await database.query<DeviceRow>(
    `SELECT d.id, d.user_id, d.reconnect_ms, d.registered_at, d.seen_at,
       (SELECT array_agg(g.group_id ORDER BY g.group_id) FROM device_groups g WHERE g.device = d.id) AS groups,
       (SELECT json_agg(json_build_object('kind', t.kind, 'address', t.address, 'at', t.registered_at,
          'dead_at', t.dead_at, 'why', t.dead_reason) ORDER BY t.position)
          FROM transports t WHERE t.device = d.id) AS transports,
       (SELECT count(*)::int FROM (SELECT FROM pushes p WHERE p.device = d.id AND p.closed_at IS NULL
          AND p.expires_at > now() LIMIT 1000) AS counted) AS open
     FROM devices d WHERE ${where}`,
    values,
  )
  return rows.map(viewOf)
}

const viewOf = (row: DeviceRow): DeviceView => ({
  device: row.id,
  ...(row.user_id === null ? {} : { user: row.user_id }),
  groups: row.groups ?? [],
  transports: (row.transports ?? []).map((each) => ({
    kind: each.kind,
    address: shorten(each.address),
    registeredAt: new Date(each.at).toISOString(),
    ...(each.dead_at === null ? {} : { deadAt: new Date(each.dead_at).toISOString() }),
    ...(each.why === null ? {} : { deadReason: each.why }),
  })),
  reconnectMs: row.reconnect_ms,
  open: row.open,
  registeredAt: row.registered_at.toISOString(),
  ...(row.seen_at === null ? {} : { seenAt: row.seen_at.toISOString() }),
})

const shorten = (address: string): string => (address.length <= 48 ? address : `${address.slice(0, 47)}…`)
