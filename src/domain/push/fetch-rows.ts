import type { Postgres } from '../../platform/postgres/postgres.ts'
import { largePayloadBytes } from '../../platform/queues/payload-claim.ts'
import type { Notification } from './push.ts'

/** What a listen asks for of one device: the rows above its position. */
export interface Fetching {
  device: string
  listen: string
  position: number
}

export type Fetched =
  /** `more`: there are further rows, for which this fetch had no room. */
  { kind: 'rows'; rows: FetchedRow[]; more: boolean } | { kind: 'replaced' }

export interface FetchedRow {
  seq: number
  /** Its payload as it stands in the row (payloads.ts), unless that is large. */
  notification: Notification
  /** Bytes of a large payload that stayed in its row, to be read when there is room for it. */
  storedBytes?: number
  /** Since its acceptance; NaN when it was given before. */
  latencyMs: number
}

/** Most rows of one device in one answer. The rest follows with the next. */
const maxRows = 100
/** A device's rows end with the one that brings their payloads to so many bytes: some may have stayed in their rows. */
const maxRowBytes = 1_048_576
/** Bytes of payloads that one statement brings, of all devices together, beside its last row's. */
const maxBytes = 8_388_608
/** Bytes as they lie on the disk that one statement unpacks to learn how long they are; packed they take less. */
const maxUnpackedBytes = 8_388_608

/**
 * Below it no number is given at a site that opened after another one: it lies above whatever that one can have given,
 * so a cursor of there confirms nothing here. Numbers there began with its time and grow by one a row; a day is added for
 * each fail-over, so clocks of sites may differ by that.
 */
const deliveryFloor = `(SELECT CASE WHEN epoch > 1
  THEN (extract(epoch FROM now()) * 1000)::bigint + (epoch - 1) * 86400000 ELSE 0 END FROM site)`

/**
 * Step 3 of docs/protocols/push-alarm.md. However many payloads stayed in their rows, a statement neither carries nor
 * unpacks more than it can within its time: large ones are left out (`storedBytes`), and the rows behind the limit, by
 * the order of the devices in the request, come with the next one.
 */
const fetchText = `
WITH want AS (
  SELECT * FROM unnest($1::text[], $2::uuid[], $3::bigint[]) WITH ORDINALITY AS w(device, listen, position, place)
), held AS (
  SELECT d.id, d.delivery_seq, w.position, w.place FROM devices d JOIN want w ON w.device = d.id AND w.listen = d.listen_id
   ORDER BY d.id FOR NO KEY UPDATE OF d
), found AS (
  SELECT h.id AS device, h.place, h.delivery_seq, p.id, p.seq, p.delivered_seq, p.payload,
    sum(p.kept) OVER own - p.kept AS own_before, sum(p.kept) OVER every - p.kept AS all_before
  FROM held h CROSS JOIN LATERAL (
    SELECT p.id, p.seq, p.delivered_seq, p.payload, coalesce(pg_column_size(p.payload), 0) AS kept FROM pushes p
     WHERE p.device = h.id AND p.closed_at IS NULL AND p.expires_at > now()
       AND (p.delivered_seq IS NULL OR p.delivered_seq > h.position)
     ORDER BY p.delivered_seq NULLS LAST, p.seq LIMIT ${maxRows}) p
  WINDOW own AS (PARTITION BY h.place ORDER BY p.delivered_seq NULLS LAST, p.seq),
    every AS (ORDER BY h.place, p.delivered_seq NULLS LAST, p.seq)
), sized AS (
  SELECT f.device, f.place, f.delivery_seq, f.id, f.seq, f.delivered_seq, coalesce(octet_length(f.payload::text), 0) AS size
    FROM found f WHERE f.own_before < ${maxRowBytes} AND f.all_before < ${maxUnpackedBytes}
), summed AS (
  SELECT s.*, sum(s.size) OVER own - s.size AS own_bytes,
    sum(CASE WHEN s.size > ${largePayloadBytes} THEN 0 ELSE s.size END) OVER every AS all_bytes FROM sized s
  WINDOW own AS (PARTITION BY s.place ORDER BY s.delivered_seq NULLS LAST, s.seq),
    every AS (ORDER BY s.place, s.delivered_seq NULLS LAST, s.seq)
), picked AS (
  SELECT s.device, s.id, s.seq, s.size, coalesce(s.delivered_seq, greatest(s.delivery_seq, ${deliveryFloor})
    + row_number() OVER (PARTITION BY s.device, s.delivered_seq IS NULL ORDER BY s.seq)) AS delivered_seq
  FROM summed s WHERE s.own_bytes < ${maxRowBytes} AND s.all_bytes < ${maxBytes}
), given AS (
  UPDATE pushes p SET delivered_seq = k.delivered_seq, delivered_at = coalesce(p.delivered_at, now()),
    state = CASE WHEN p.state = 'pending' THEN 'delivered' ELSE p.state END
    FROM picked k WHERE p.id = k.id AND p.device = k.device AND p.closed_at IS NULL
  RETURNING p.device, p.id, p.topic, CASE WHEN k.size <= ${largePayloadBytes} THEN p.payload::text END AS payload,
    CASE WHEN k.size > ${largePayloadBytes} THEN k.size END AS stored, p.accepted_at, p.delivered_seq,
    p.delivered_at = now() AS first
), counted AS (
  UPDATE devices d SET delivery_seq = k.last FROM (
    SELECT device, max(delivered_seq) AS last FROM picked GROUP BY device) k
   WHERE d.id = k.device AND k.last > d.delivery_seq
), total AS (
  SELECT device, count(*)::int AS n FROM found GROUP BY device
)
SELECT h.id AS device, coalesce(t.n, 0) AS total, g.id::text AS push, g.topic, g.payload, g.stored, g.delivered_seq::text AS seq,
  g.first, extract(epoch FROM g.accepted_at) * 1000 AS accepted_ms,
  extract(epoch FROM now() - g.accepted_at) * 1000 AS latency_ms
FROM held h LEFT JOIN total t ON t.device = h.id LEFT JOIN given g ON g.device = h.id ORDER BY h.id, g.delivered_seq`

interface FoundRow {
  device: string
  total: number
  push: string | null
  topic: string | null
  payload: string | null
  stored: number | null
  seq: string
  first: boolean
  accepted_ms: string
  latency_ms: string
}

/** One statement for several devices. Of those behind its limit nothing is given, and `more` is set. */
export async function fetchRows(postgres: Postgres, items: Fetching[]): Promise<Fetched[]> {
  const { rows } = await postgres.query<FoundRow>({
    name: 'push-fetch',
    text: fetchText,
    values: [
      items.map((item) => item.device),
      items.map((item) => item.listen),
      items.map((item) => item.position),
    ],
  })
  const byDevice = new Map<string, FoundRow[]>()
  for (const row of rows) {
    const found = byDevice.get(row.device)
    if (found) found.push(row)
    else byDevice.set(row.device, [row])
  }
  return items.map((item) => fetchedOf(byDevice.get(item.device)))
}

function fetchedOf(found: FoundRow[] | undefined): Fetched {
  if (!found) return { kind: 'replaced' }
  const total = found[0]?.total ?? 0
  const rows = found.filter(({ push }) => push !== null).map(rowOf)
  return { kind: 'rows', rows, more: total >= maxRows || total > rows.length }
}

const rowOf = (row: FoundRow): FetchedRow => ({
  seq: Number(row.seq),
  latencyMs: row.first ? Number(row.latency_ms) : Number.NaN,
  ...(row.stored === null ? {} : { storedBytes: row.stored }),
  notification: {
    id: row.push ?? '',
    device: row.device,
    ...(row.topic === null ? {} : { topic: row.topic }),
    ...(row.payload === null ? {} : { payload: row.payload }),
    acceptedAt: new Date(Number(row.accepted_ms)).toISOString(),
  },
})

export interface Stored {
  device: string
  push: string
}

/** Payloads that stayed in their rows, as they stand there; undefined for a row that is gone. */
export async function readStored(postgres: Postgres, items: Stored[]): Promise<(string | undefined)[]> {
  const { rows } = await postgres.query<{ place: string; payload: string | null }>({
    name: 'push-stored',
    text: `SELECT w.place, p.payload::text FROM unnest($1::text[], $2::uuid[]) WITH ORDINALITY AS w(device, push, place)
      JOIN pushes p ON p.id = w.push AND p.device = w.device`,
    values: [items.map((item) => item.device), items.map((item) => item.push)],
  })
  const byPlace = new Map(rows.map(({ place, payload }) => [Number(place) - 1, payload ?? undefined]))
  return items.map((_item, index) => byPlace.get(index))
}
