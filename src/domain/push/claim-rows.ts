import type { Postgres } from '../../platform/postgres/postgres.ts'
import type { DuePoint } from './accept-rows.ts'
import { mostCarried } from './provider.ts'
import type { StoredTransport, TransportKind } from './transport.ts'

/** How often a device may get a cloud push: `burst` at once after a rest, then one each interval. */
export interface FloodLimit {
  intervalMs: number
  burst: number
}

/** One cloud push for one device, leased to this process. */
export interface ClaimedSend {
  device: string
  shard: number
  transport: StoredTransport
  /** Whether a further transport stands behind this one. */
  hasNext: boolean
  /** Of the cloud push. Stays when it is sent again because its sender died, or because it is to be retried. */
  sendId: string
  /** Pushes with the same key replace each other on the device. */
  collapse: string
  /** Rows in it. */
  count: number
  /** Tries on this transport, this one included. */
  attempt: number
  /** How often nothing left for this transport before. */
  unsent: number
  /** The newest of its rows; its payload as it stands there (payloads.ts). `truncated`: it is too large for any provider. */
  push: { id: string; topic?: string; payload?: string; truncated?: true; acceptedAt: string }
  /** How long the provider should keep it, ms. */
  ttlMs: number
  /** Since it was due, ms. */
  lateMs: number
}

export interface Claim {
  sends: ClaimedSend[]
  /** Devices with due rows that somebody else held at the moment: come back for them. */
  skipped: number
  /** Whether there is more that is due, beyond what was skipped. */
  full: boolean
  /** Rows that were put off by the flood limit come due again here. */
  held: DuePoint[]
  expired: number
  /** The database's time of the claim, epoch ms. */
  saidAt: number
}

export interface ClaimOptions {
  shards: readonly number[]
  maxDevices: number
  /** Of this process; only who bears it may mark the rows. */
  lease: string
  leaseMs: number
  flood: FloodLimit
}

/** Most index entries that are read to find due devices. */
const maxScanned = 5_000

const claimText = `
WITH due AS MATERIALIZED (
  SELECT device, due_at FROM pushes WHERE closed_at IS NULL AND shard = ANY ($1::smallint[]) AND due_at <= now()
   LIMIT ${maxScanned}
), candidate AS (
  SELECT device FROM due GROUP BY device ORDER BY min(due_at) LIMIT $2
), locked AS (
  SELECT d.id, d.shard, d.flood_at FROM devices d WHERE d.id IN (SELECT device FROM candidate)
   ORDER BY d.id FOR NO KEY UPDATE SKIP LOCKED
), expired AS (
  UPDATE pushes p SET state = 'expired', closed_at = now(), log = push_log(p.log, 'expired') FROM locked l
   WHERE p.device = l.id AND p.closed_at IS NULL AND p.due_at <= now() AND p.expires_at <= now()
  RETURNING p.device
), lowest AS (
  SELECT p.device, min(p.hop) AS hop, max(p.hop) > min(p.hop) AS mixed FROM pushes p JOIN locked l ON l.id = p.device
   WHERE p.closed_at IS NULL AND p.due_at <= now() AND p.expires_at > now() GROUP BY p.device
), bundle AS (
  SELECT w.device, w.hop, count(*) AS n, max(p.attempts) AS attempts, min(p.due_at) AS due_at, max(p.expires_at) AS expires_at,
    min(p.send_id::text || p.collapse) AS former,
    gen_random_uuid()::text AS fresh, CASE WHEN count(*) = 1 THEN min(p.topic) END AS topic
  FROM lowest w JOIN pushes p ON p.device = w.device AND p.hop = w.hop
   WHERE p.closed_at IS NULL AND p.due_at <= now() AND p.expires_at > now() GROUP BY w.device, w.hop
), verdict AS (
  SELECT b.device, b.hop, b.n, b.attempts, b.due_at, b.expires_at, l.shard,
    coalesce(left(b.former, 36), b.fresh)::uuid AS send_id,
    coalesce(substr(b.former, 37), 't:' || b.topic, b.fresh) AS collapse,
    t.position, t.kind, t.address, t.options, t.registered_at::text AS registered_at,
    EXISTS (SELECT FROM transports n WHERE n.device = b.device AND n.position > t.position AND n.dead_at IS NULL) AS has_next,
    l.flood_at - ($6::int - 1) * $5::int * interval '1 ms' AS free_at,
    CASE WHEN t.position IS NULL THEN 'none'
      WHEN l.flood_at - ($6::int - 1) * $5::int * interval '1 ms' > now() THEN 'held' ELSE 'send' END AS verdict
  FROM bundle b JOIN locked l ON l.id = b.device LEFT JOIN LATERAL (
    SELECT * FROM transports t WHERE t.device = b.device AND t.position >= b.hop AND t.dead_at IS NULL
     ORDER BY t.position LIMIT 1) t ON true
), claimed AS (
  UPDATE pushes p SET
    state = CASE v.verdict WHEN 'send' THEN 'sending' WHEN 'held' THEN 'due'
      ELSE CASE WHEN p.sent_at IS NULL THEN 'undeliverable' ELSE 'sent' END END,
    due_at = CASE v.verdict WHEN 'send' THEN now() + $4::int * interval '1 ms' WHEN 'held' THEN least(v.free_at, p.expires_at)
      ELSE p.expires_at END,
    lease = CASE v.verdict WHEN 'send' THEN $3::uuid END,
    send_id = CASE v.verdict WHEN 'send' THEN v.send_id ELSE p.send_id END,
    collapse = CASE v.verdict WHEN 'send' THEN v.collapse ELSE p.collapse END,
    hop = CASE v.verdict WHEN 'send' THEN v.position ELSE p.hop END,
    attempts = least(p.attempts + CASE v.verdict WHEN 'send' THEN 1 ELSE 0 END, 10000),
    log = push_log(
      CASE WHEN p.state IN ('pending', 'delivered') THEN push_log(p.log, 'due') ELSE p.log END,
      CASE v.verdict WHEN 'send' THEN 'claimed' WHEN 'held' THEN 'flood-held' ELSE 'no-transport' END,
      CASE v.verdict WHEN 'send' THEN jsonb_build_object('transport', v.kind, 'sendId', v.send_id) ELSE '{}'::jsonb END)
    FROM verdict v WHERE p.device = v.device AND p.hop = v.hop AND p.closed_at IS NULL AND p.due_at <= now()
     AND p.expires_at > now()
  -- a log that is full tells of no further try (push_log)
  RETURNING p.device, p.id, p.seq, p.attempts, v.verdict, CASE WHEN jsonb_array_length(p.log) >= 60 THEN 60 ELSE (SELECT count(*)::int FROM jsonb_array_elements(p.log) l
    WHERE l ->> 'name' = 'unsent' AND l ->> 'transport' = v.kind
      AND coalesce((l ->> 'position')::int, v.position) = v.position) END AS unsent
), taken AS (
  SELECT device, verdict, count(*)::int AS n, max(attempts) AS attempts, max(unsent) AS unsent, max(seq) AS newest FROM claimed GROUP BY device, verdict
), spent AS (
  UPDATE devices d SET flood_at = greatest(d.flood_at, now()) + $5::int * interval '1 ms'
    FROM taken t WHERE d.id = t.device AND t.verdict = 'send'
), meta AS (
  SELECT (SELECT count(*)::int FROM candidate) AS candidates, (SELECT count(*)::int FROM due) AS scanned,
    EXISTS (SELECT FROM lowest WHERE mixed) AS mixed, (SELECT count(*)::int FROM locked) AS locked,
    (SELECT count(*)::int FROM expired) AS expired, (extract(epoch FROM now()) * 1000)::bigint::text AS said_at
)
SELECT m.*, s.* FROM meta m LEFT JOIN (
  SELECT v.device, v.shard, v.verdict, v.send_id, v.collapse, v.position, v.kind, v.address, v.options, v.registered_at,
    v.has_next, t.n, t.attempts, t.unsent, p.id::text AS push, p.topic, p.payload IS NOT NULL AS has_payload,
    -- what no provider could carry stays here: of 128 devices it could be as many MiB
    CASE WHEN pg_column_size(p.payload) <= ${mostCarried} AND octet_length(p.payload::text) <= ${mostCarried}
      THEN p.payload::text END AS payload,
    ceil(extract(epoch FROM v.free_at) * 1000)::bigint::text AS free_ms,
    (extract(epoch FROM p.accepted_at) * 1000)::float8 AS accepted_ms,
    (extract(epoch FROM v.expires_at - now()) * 1000)::float8 AS ttl_ms,
    (extract(epoch FROM now() - v.due_at) * 1000)::float8 AS late_ms
  FROM taken t JOIN verdict v ON v.device = t.device
   LEFT JOIN LATERAL (SELECT * FROM pushes p WHERE p.device = t.device AND p.seq = t.newest AND p.closed_at IS NULL) p ON true) s ON true`

interface ClaimRow {
  candidates: number
  scanned: number
  mixed: boolean
  locked: number
  expired: number
  said_at: string
  device: string | null
  shard: number
  verdict: 'send' | 'held' | 'none'
  send_id: string
  collapse: string
  position: number
  kind: TransportKind
  address: string
  options: Record<string, string>
  registered_at: string
  has_next: boolean
  n: number
  attempts: number
  unsent: number
  push: string
  topic: string | null
  payload: string | null
  has_payload: boolean
  free_ms: string
  accepted_ms: number
  ttl_ms: number
  late_ms: number
}

/** Step 5 of docs/protocols/push-alarm.md: lease and flood limit in one statement. */
export async function claimSends(postgres: Postgres, options: ClaimOptions): Promise<Claim> {
  const { shards, maxDevices, lease, leaseMs, flood } = options
  const { rows } = await postgres.query<ClaimRow>({
    name: 'push-claim',
    text: claimText,
    values: [shards, maxDevices, lease, leaseMs, flood.intervalMs, flood.burst],
  })
  const [meta] = rows
  const found = rows.filter((row) => row.device !== null)
  const candidates = meta?.candidates ?? 0
  return {
    sends: found.filter((row) => row.verdict === 'send').map(sendOf),
    held: found
      .filter((row) => row.verdict === 'held')
      .map((row) => ({ shard: row.shard, dueAt: Number(row.free_ms), saidAt: Number(row.said_at) })),
    skipped: candidates - (meta?.locked ?? 0),
    full: candidates >= maxDevices || (meta?.scanned ?? 0) >= maxScanned || meta?.mixed === true,
    expired: meta?.expired ?? 0,
    saidAt: Number(meta?.said_at ?? 0),
  }
}

const sendOf = (row: ClaimRow): ClaimedSend => ({
  device: row.device ?? '',
  shard: row.shard,
  transport: {
    kind: row.kind,
    address: row.address,
    options: row.options,
    position: row.position,
    registeredAt: row.registered_at,
  },
  hasNext: row.has_next,
  sendId: row.send_id,
  collapse: row.collapse,
  count: row.n,
  attempt: row.attempts,
  unsent: row.unsent,
  push: {
    id: row.push,
    ...(row.topic === null ? {} : { topic: row.topic }),
    ...(row.payload === null ? {} : { payload: row.payload }),
    ...(row.has_payload && row.payload === null ? { truncated: true } : {}),
    acceptedAt: new Date(row.accepted_ms).toISOString(),
  },
  ttlMs: Math.max(0, Math.round(row.ttl_ms)),
  lateMs: row.late_ms,
})
