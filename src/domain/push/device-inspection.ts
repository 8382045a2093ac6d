import type { Queryable } from '../../platform/postgres/postgres.ts'
import type { TransportKind } from './transport.ts'

/** What there is to know of a device, without a key, a token or an address. Instants are ISO 8601. */
export interface InspectedDevice {
  device: string
  shard: number
  user?: string
  groups: string[]
  /** In order of preference. */
  transports: InspectedTransport[]
  /** How long it lately took to come back after an answer, ms. */
  reconnectMs: number
  /** How long a push waits for its confirmation unless its sender says otherwise, ms. */
  confirmMs: number
  /** How far the flood clock is ahead of now, ms: each cloud push puts it on by the interval of the flood limit. */
  floodMs: number
  registeredAt: string
  seenAt?: string
}

export interface InspectedTransport {
  kind: TransportKind
  /** Of a URL, its origin; tokens have none. */
  origin?: string
  registeredAt: string
  deadAt?: string
  deadReason?: string
}

interface DeviceRow {
  id: string
  shard: number
  user_id: string | null
  reconnect_ms: number
  flood_ms: number
  registered_at: Date
  seen_at: Date | null
  groups: string[] | null
}

interface TransportRow {
  kind: TransportKind
  address: string
  registered_at: Date
  dead_at: Date | null
  dead_reason: string | null
}

const maxGroups = 100

export async function inspectDevice(
  postgres: Queryable,
  device: string,
): Promise<InspectedDevice | undefined> {
  const [devices, transports] = await Promise.all([
    postgres.query<DeviceRow>(
      `SELECT d.id, d.shard, d.user_id, d.reconnect_ms, d.registered_at, d.seen_at,
         greatest(0, extract(epoch FROM d.flood_at - now()) * 1000)::float8 AS flood_ms,
         (SELECT array_agg(g.group_id ORDER BY g.group_id) FROM (
            SELECT group_id FROM device_groups WHERE device = d.id LIMIT ${maxGroups}) AS g) AS groups
       FROM devices d WHERE d.id = $1`,
      [device],
    ),
    postgres.query<TransportRow>(
      'SELECT kind, address, registered_at, dead_at, dead_reason FROM transports WHERE device = $1 ORDER BY position',
      [device],
    ),
  ])
  const [row] = devices.rows
  return row && toView(row, transports.rows)
}

const toView = (row: DeviceRow, transports: TransportRow[]): InspectedDevice => ({
  device: row.id,
  shard: row.shard,
  ...(row.user_id === null ? {} : { user: row.user_id }),
  groups: row.groups ?? [],
  transports: transports.map((each) => ({
    kind: each.kind,
    ...originOf(each.address),
    registeredAt: each.registered_at.toISOString(),
    ...(each.dead_at ? { deadAt: each.dead_at.toISOString() } : {}),
    ...(each.dead_reason === null ? {} : { deadReason: each.dead_reason }),
  })),
  reconnectMs: row.reconnect_ms,
  // As accept-rows.ts reckons it.
  confirmMs: Math.min(Math.max(2 * row.reconnect_ms, 2_000), 60_000),
  floodMs: row.flood_ms,
  registeredAt: row.registered_at.toISOString(),
  ...(row.seen_at ? { seenAt: row.seen_at.toISOString() } : {}),
})

/** The path of an endpoint is what whoever knows it can send to. */
function originOf(address: string): { origin?: string } {
  if (!/^https?:/i.test(address) || !URL.canParse(address)) return {}
  return { origin: new URL(address).origin }
}

export interface ListedDevice {
  device: string
  user?: string
  /** In order of preference. */
  transports: { kind: TransportKind; dead: boolean }[]
  /** Pushes that are not closed, at most 1,000 counted. */
  open: number
  seenAt?: string
}

export interface DeviceFilter {
  user?: string
  /** Devices after this one, in the order of their ids. */
  after?: string
  limit: number
}

interface ListedRow {
  id: string
  user_id: string | null
  seen_at: Date | null
  transports: { kind: TransportKind; dead: boolean }[] | null
  open: number
}

export async function listDevices(postgres: Queryable, filter: DeviceFilter): Promise<ListedDevice[]> {
  const { rows } = await postgres.query<ListedRow>(
    `SELECT d.id, d.user_id, d.seen_at,
       (SELECT json_agg(json_build_object('kind', t.kind, 'dead', t.dead_at IS NOT NULL) ORDER BY t.position)
          FROM transports t WHERE t.device = d.id) AS transports,
       (SELECT count(*)::int FROM (SELECT FROM pushes p WHERE p.device = d.id AND p.closed_at IS NULL LIMIT 1000) AS c)
         AS open
     FROM devices d WHERE d.id > $1 AND ($2::text IS NULL OR d.user_id = $2) ORDER BY d.id LIMIT $3`,
    [filter.after ?? '', filter.user ?? null, filter.limit],
  )
  return rows.map((row) => ({
    device: row.id,
    ...(row.user_id === null ? {} : { user: row.user_id }),
    transports: row.transports ?? [],
    open: row.open,
    ...(row.seen_at ? { seenAt: row.seen_at.toISOString() } : {}),
  }))
}
