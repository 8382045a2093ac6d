import { createBatcher } from '../../core/batcher.ts'
import type { Postgres } from '../../platform/postgres/postgres.ts'
import { createDeviceBatcher } from './device-batcher.ts'
import { type Fetched, type Fetching, fetchRows, readStored, type Stored } from './fetch-rows.ts'

/** A listen of one device, as its row knows it. */
export interface Registering {
  device: string
  /** From the token; undefined when an API key vouches for the device. */
  generation: string | undefined
  listen: string
  node: string
  /** What is confirmed: up to this number; 'all' that has left for a client; or nothing. */
  confirm: number | 'all' | 'nothing'
}

export type Registered =
  | {
      kind: 'registered'
      /** The number of the last row that this listen need not give. */
      position: number
      confirmed: number
      /** Who listened before, if it may still do so. */
      replaced: { listen: string; node: string } | undefined
    }
  | { kind: 'unknown' }
  | { kind: 'foreign' }

export interface Answered {
  device: string
  listen: string
  upTo: number
}

/** Steps 2, 3 and 4 of docs/protocols/push-alarm.md. Every method joins its concurrent callers into one statement. */
export interface ListenRows {
  register(registering: Registering): Promise<Registered>
  fetch(fetching: Fetching): Promise<Fetched>
  /** A large payload that stayed in its row, as it stands there; undefined when the row is gone. */
  stored(stored: Stored): Promise<string | undefined>
  /** Records that the rows up to this number have left, unless a newer listen has taken over. */
  answered(answered: Answered): Promise<void>
  /** Confirms up to a number, without a listen. @returns how many, or undefined when the device is not there */
  confirm(device: string, generation: string | undefined, upTo: number): Promise<number | undefined>
  /** Takes back a delivery whose bytes never left, so that the next look finds it. */
  giveBack(device: string, listen: string, from: number): Promise<void>
  /** Which of these listens have something to fetch, or were replaced. */
  look(listens: { device: string; listen: string }[]): Promise<string[]>
}

/** Large payloads of one statement: each has a MiB at most. */
const maxStored = 8

export function createListenRows(postgres: Postgres): ListenRows {
  const registers = createDeviceBatcher<Registering, Registered>((items) => register(postgres, items))
  const fetches = createDeviceBatcher<Fetching, Fetched>((items) => fetchRows(postgres, items))
  const answers = createDeviceBatcher<Answered, void>((items) => markAnswered(postgres, items))
  const confirms = createDeviceBatcher<Confirming, number | undefined>((items) => confirm(postgres, items))
  const readings = createBatcher<Stored, string | undefined>({
    run: (items) => readStored(postgres, items),
    maxItems: maxStored,
    concurrency: 2,
  })
  return {
    register: (registering) => registers.add(registering),
    fetch: async (fetching) => {
      for (;;) {
        const fetched = await fetches.add(fetching)
        // Nothing, and more: its statement was full of what others had asked for before.
        if (fetched.kind === 'replaced' || fetched.rows.length > 0 || !fetched.more) return fetched
      }
    },
    stored: (stored) => readings.add(stored),
    answered: (answered) => answers.add(answered),
    confirm: (device, generation, upTo) => confirms.add({ device, generation, upTo }),
    giveBack: async (device, listen, from) => {
      await postgres.query({ name: 'push-give-back', text: giveBackText, values: [device, listen, from] })
    },
    look: async (listens) => {
      const { rows } = await postgres.query<{ id: string }>({
        name: 'push-look',
        text: lookText,
        values: [listens.map((each) => each.device), listens.map((each) => each.listen)],
      })
      return rows.map((row) => row.id)
    },
  }
}

interface Confirming {
  device: string
  generation: string | undefined
  upTo: number
}

/**
 * A sample is clamped to 4/5 … 3/2 of the present value and counts for a fifth, after ICEpush; the result stays
 * within 1 … 60 s.
 */
const smoothed = `least(greatest((least(greatest(c.sample_ms, d.reconnect_ms * 0.8), d.reconnect_ms * 1.5)
  + 4 * d.reconnect_ms) / 5, 1000), 60000)::int`

const registerText = `
WITH want AS (
  SELECT * FROM unnest($1::text[], $2::bigint[], $3::uuid[], $4::text[], $5::bigint[], $6::boolean[])
    AS w(device, generation, listen, node, up_to, everything)
), former AS (
  SELECT d.id, d.listen_id, d.listen_node, d.reconnect_ms, w.listen, w.node,
    w.generation IS NULL OR w.generation = d.generation AS ours,
    least(d.delivery_seq, CASE WHEN w.everything THEN d.answered_seq ELSE coalesce(w.up_to, 0) END) AS up_to
  FROM devices d JOIN want w ON w.device = d.id ORDER BY d.id FOR NO KEY UPDATE OF d
), confirmed AS (
  UPDATE pushes p SET state = 'confirmed', closed_at = now() FROM former f
   WHERE f.ours AND p.device = f.id AND p.closed_at IS NULL AND p.delivered_seq <= f.up_to
  RETURNING p.device, p.delivered_at
), closed AS (
  SELECT device, count(*)::int AS n, extract(epoch FROM now() - max(delivered_at)) * 1000 AS sample_ms
    FROM confirmed GROUP BY device
), updated AS (
  UPDATE devices d SET listen_id = f.listen, listen_node = f.node, seen_at = now(),
    reconnect_ms = CASE WHEN c.n IS NULL THEN d.reconnect_ms ELSE ${smoothed} END
    FROM former f LEFT JOIN closed c ON c.device = f.id WHERE f.ours AND d.id = f.id
)
SELECT f.id, f.ours, f.listen_id, f.listen_node, f.up_to::text, coalesce(c.n, 0) AS confirmed
  FROM former f LEFT JOIN closed c ON c.device = f.id`

async function register(postgres: Postgres, items: Registering[]): Promise<Registered[]> {
  const { rows } = await postgres.query<{
    id: string
    ours: boolean
    listen_id: string | null
    listen_node: string | null
    up_to: string
    confirmed: number
  }>({
    name: 'push-register',
    text: registerText,
    values: [
      items.map((item) => item.device),
      items.map((item) => item.generation ?? null),
      items.map((item) => item.listen),
      items.map((item) => item.node),
      items.map((item) => (typeof item.confirm === 'number' ? item.confirm : null)),
      items.map((item) => item.confirm === 'all'),
    ],
  })
  const byDevice = new Map(rows.map((row) => [row.id, row]))
  return items.map((item): Registered => {
    const row = byDevice.get(item.device)
    if (!row) return { kind: 'unknown' }
    if (!row.ours) return { kind: 'foreign' }
    const { listen_id: listen, listen_node: node } = row
    return {
      kind: 'registered',
      position: Number(row.up_to),
      confirmed: row.confirmed,
      replaced: listen !== null && node !== null && listen !== item.listen ? { listen, node } : undefined,
    }
  })
}

const answeredText = `
WITH held AS (
  SELECT d.id, w.up_to FROM unnest($1::text[], $2::uuid[], $3::bigint[]) AS w(device, listen, up_to)
   JOIN devices d ON d.id = w.device AND d.listen_id = w.listen ORDER BY d.id FOR NO KEY UPDATE OF d
)
UPDATE devices d SET answered_seq = h.up_to FROM held h WHERE d.id = h.id AND d.answered_seq < h.up_to`

async function markAnswered(postgres: Postgres, items: Answered[]): Promise<void[]> {
  await postgres.query({
    name: 'push-answered',
    text: answeredText,
    values: [
      items.map((item) => item.device),
      items.map((item) => item.listen),
      items.map((item) => item.upTo),
    ],
  })
  return items.map(() => undefined)
}

const confirmText = `
WITH want AS (
  SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS w(device, generation, up_to)
), held AS (
  SELECT d.id, w.up_to FROM devices d JOIN want w ON w.device = d.id
   WHERE w.generation IS NULL OR w.generation = d.generation ORDER BY d.id FOR NO KEY UPDATE OF d
), confirmed AS (
  UPDATE pushes p SET state = 'confirmed', closed_at = now() FROM held h
   WHERE p.device = h.id AND p.closed_at IS NULL AND p.delivered_seq <= h.up_to
  RETURNING p.device, p.delivered_at
), closed AS (
  SELECT device, count(*)::int AS n FROM confirmed GROUP BY device
), seen AS (
  UPDATE devices d SET seen_at = now() FROM closed c WHERE d.id = c.device
)
SELECT h.id, coalesce(c.n, 0) AS confirmed FROM held h LEFT JOIN closed c ON c.device = h.id`

async function confirm(postgres: Postgres, items: Confirming[]): Promise<(number | undefined)[]> {
  const { rows } = await postgres.query<{ id: string; confirmed: number }>({
    name: 'push-confirm',
    text: confirmText,
    values: [
      items.map((item) => item.device),
      items.map((item) => item.generation ?? null),
      items.map((item) => item.upTo),
    ],
  })
  const byDevice = new Map(rows.map((row) => [row.id, row.confirmed]))
  return items.map((item) => byDevice.get(item.device))
}

const lookText = `
SELECT d.id FROM unnest($1::text[], $2::uuid[]) AS w(device, listen) JOIN devices d ON d.id = w.device
 WHERE d.listen_id IS DISTINCT FROM w.listen
    OR EXISTS (SELECT FROM pushes p WHERE p.device = d.id AND p.closed_at IS NULL AND p.delivered_seq IS NULL
                AND p.expires_at > now())`

const giveBackText = `
WITH held AS (
  SELECT id FROM devices WHERE id = $1 AND listen_id = $2 FOR NO KEY UPDATE
)
UPDATE pushes p SET delivered_seq = NULL, delivered_at = NULL,
  state = CASE WHEN p.state = 'delivered' THEN 'pending' ELSE p.state END
  FROM held h WHERE p.device = h.id AND p.closed_at IS NULL AND p.delivered_seq > $3`
