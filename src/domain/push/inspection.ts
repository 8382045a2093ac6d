import type { Queryable } from '../../platform/postgres/postgres.ts'
import { readClaim } from '../../platform/queues/payload-claim.ts'
import { columns, type PushRow, viewOf } from './delivery-log.ts'
import {
  type DeviceFilter,
  type InspectedDevice,
  inspectDevice,
  type ListedDevice,
  listDevices,
} from './device-inspection.ts'
import { type PushBacklog, type PushFigures, readBacklog, readPushFigures } from './figures.ts'
import type { DeliveryLog, PushState } from './push.ts'

/** Looks at the rows of pushes, for people. Every look reads a bounded number of rows. */
export interface PushInspection {
  figures(): Promise<PushFigures>
  backlog(): Promise<PushBacklog>
  /** Newest first. */
  list(filter: PushFilter): Promise<PushList>
  /** Those that are due and that nobody has claimed, the oldest first. */
  overdue(limit: number): Promise<ListedPush[]>
  /** One push with a page of its devices. Undefined: there is none of that id. */
  show(id: string, page: DevicePage): Promise<InspectedPush | undefined>
  /** Undefined: it is not registered. */
  device(device: string): Promise<InspectedDevice | undefined>
  /** In the order of their ids. */
  devices(filter: DeviceFilter): Promise<ListedDevice[]>
  /** Open pushes of a device, newest first. */
  openOf(device: string, limit: number): Promise<ListedPush[]>
}

export const pushStates: readonly PushState[] = [
  'pending',
  'delivered',
  'due',
  'sending',
  'sent',
  'undeliverable',
  'confirmed',
  'expired',
  'withdrawn',
  'replaced',
]

export interface PushFilter {
  states?: readonly PushState[]
  device?: string
  /** Where the page before ended. */
  cursor?: PushPlace
  limit: number
}

export interface PushPlace {
  id: string
  device: string
}

export interface PushList {
  pushes: ListedPush[]
  /** Absent: there are no more. A list without rows may have one: so far none was found among those looked through. */
  cursor?: PushPlace
}

/** A push on its way to one device. Instants are ISO 8601. */
export interface ListedPush {
  id: string
  device: string
  state: PushState
  priority: boolean
  topic?: string
  acceptedAt: string
  dueAt: string
  expiresAt: string
  closedAt?: string
}

export interface DevicePage {
  /** Only this device. */
  device?: string
  /** Devices after this one. */
  after?: string
  limit: number
}

export interface InspectedPush {
  id: string
  priority: boolean
  topic?: string
  acceptedAt: string
  expiresAt: string
  /** Its JSON as it stands in the rows (payloads.ts), and the bytes of what that stands for. */
  payload?: { text: string; bytes: number; apart: boolean }
  states: Partial<Record<PushState, number>>
  /** False: it went to more devices than are counted. */
  exact: boolean
  devices: DeliveryLog['devices']
  /** There are further devices after the last of this page. */
  more: boolean
}

/** Rows that are looked through for one page. */
const maxLooked = 20_000
const maxCounted = 10_000
const lastId = 'ffffffff-ffff-ffff-ffff-ffffffffffff'

export function createPushInspection(postgres: Queryable): PushInspection {
  return {
    figures: () => readPushFigures(postgres),
    backlog: () => readBacklog(postgres),
    list: (filter) => list(postgres, filter),
    overdue: async (limit) => {
      const { rows } = await postgres.query<ListedRow>(
        `SELECT ${listed} FROM generate_series(0, 63) AS s CROSS JOIN LATERAL (
           SELECT * FROM pushes WHERE closed_at IS NULL AND shard = s AND due_at <= now() ORDER BY due_at LIMIT $1) AS p
         ORDER BY p.due_at LIMIT $1`,
        [limit],
      )
      return rows.map(toListed)
    },
    show: (id, page) => show(postgres, id, page),
    device: (device) => inspectDevice(postgres, device),
    devices: (filter) => listDevices(postgres, filter),
    openOf: async (device, limit) => {
      const { rows } = await postgres.query<ListedRow>(
        `SELECT ${listed} FROM pushes p WHERE p.device = $1 AND p.closed_at IS NULL ORDER BY p.seq DESC LIMIT $2`,
        [device, limit],
      )
      return rows.map(toListed)
    },
  }
}

const listed =
  'p.id::text, p.device, p.state, p.priority, p.topic, p.accepted_at, p.due_at, p.expires_at, p.closed_at'

interface ListedRow {
  id: string
  device: string
  state: PushState
  priority: boolean
  topic: string | null
  accepted_at: Date
  due_at: Date
  expires_at: Date
  closed_at: Date | null
}

const toListed = (row: ListedRow): ListedPush => ({
  id: row.id,
  device: row.device,
  state: row.state,
  priority: row.priority,
  ...(row.topic === null ? {} : { topic: row.topic }),
  acceptedAt: row.accepted_at.toISOString(),
  dueAt: row.due_at.toISOString(),
  expiresAt: row.expires_at.toISOString(),
  ...(row.closed_at ? { closedAt: row.closed_at.toISOString() } : {}),
})

interface Found extends Omit<ListedRow, 'id'> {
  id: string | null
  looked: number
  last_id: string | null
  last_device: string | null
}

/** Without an index by state, a page looks through the newest rows; what it carries of them is small. */
const listText = `
WITH seen AS MATERIALIZED (
  SELECT id, device, state FROM pushes WHERE (id, device) < ($1::uuid, $2::text) ORDER BY id DESC, device DESC LIMIT $3
), matching AS MATERIALIZED (
  SELECT id, device FROM seen WHERE ($4::text[] IS NULL OR state = ANY ($4)) AND ($5::text IS NULL OR device = $5)
   ORDER BY id DESC, device DESC LIMIT $6
), bounds AS (
  SELECT (SELECT count(*)::int FROM seen) AS looked, l.id::text AS last_id, l.device AS last_device
    FROM (SELECT id, device FROM seen ORDER BY id, device LIMIT 1) AS l
)
SELECT ${listed}, b.* FROM bounds b
  LEFT JOIN (matching m JOIN pushes p ON p.id = m.id AND p.device = m.device) ON true
 ORDER BY p.id DESC, p.device DESC`

async function list(postgres: Queryable, filter: PushFilter): Promise<PushList> {
  const { states, device, cursor = { id: lastId, device: '' }, limit } = filter
  const window = states === undefined && device === undefined ? limit + 1 : maxLooked
  const { rows } = await postgres.query<Found>(listText, [
    cursor.id,
    cursor.device,
    window,
    states ?? null,
    device ?? null,
    limit + 1,
  ])
  const found = rows.filter((row): row is Found & ListedRow => row.id !== null).map(toListed)
  const pushes = found.slice(0, limit)
  const last = pushes.at(-1)
  if (found.length > limit && last) return { pushes, cursor: { id: last.id, device: last.device } }
  const [bounds] = rows
  const more = bounds !== undefined && bounds.looked >= window
  if (!more || bounds.last_id === null || bounds.last_device === null) return { pushes }
  return { pushes, cursor: { id: bounds.last_id, device: bounds.last_device } }
}

interface HeadRow {
  priority: boolean
  topic: string | null
  accepted_at: Date
  expires_at: Date
  payload: string | null
}

async function show(postgres: Queryable, id: string, page: DevicePage): Promise<InspectedPush | undefined> {
  const [heads, counts, found] = await Promise.all([
    postgres.query<HeadRow>(
      `SELECT priority, topic, accepted_at, expires_at, payload::text AS payload FROM pushes
        WHERE id = $1 ORDER BY device LIMIT 1`,
      [id],
    ),
    postgres.query<{ state: PushState; n: number }>(
      `SELECT state, count(*)::int AS n FROM (SELECT state FROM pushes WHERE id = $1 LIMIT ${maxCounted + 1}) AS counted
        GROUP BY state`,
      [id],
    ),
    postgres.query<PushRow>(
      `SELECT ${columns} FROM pushes WHERE id = $1 AND device > $2 AND ($3::text IS NULL OR device = $3)
        ORDER BY device LIMIT $4`,
      [id, page.after ?? '', page.device ?? null, page.limit + 1],
    ),
  ])
  const [head] = heads.rows
  if (!head) return undefined
  const counted = counts.rows.reduce((sum, { n }) => sum + n, 0)
  return {
    id,
    priority: head.priority,
    ...(head.topic === null ? {} : { topic: head.topic }),
    acceptedAt: head.accepted_at.toISOString(),
    expiresAt: head.expires_at.toISOString(),
    ...(head.payload === null ? {} : { payload: payloadOf(head.payload) }),
    states: Object.fromEntries(counts.rows.map(({ state, n }) => [state, n])),
    exact: counted <= maxCounted,
    devices: found.rows.slice(0, page.limit).map(viewOf),
    more: found.rows.length > page.limit,
  }
}

function payloadOf(text: string): NonNullable<InspectedPush['payload']> {
  const claim = readClaim(text)
  return { text, bytes: claim?.bytes ?? Buffer.byteLength(text), apart: claim !== undefined }
}
