import type { Postgres } from '../../platform/postgres/postgres.ts'
import type { DuePoint } from './accept-rows.ts'
import type { ClaimedSend } from './claim-rows.ts'

/** What became of a cloud push, as it goes into its rows. */
export type Mark =
  | { kind: 'sent'; providerId: string | undefined }
  /** The address does not exist any more. `goneAt`: since when, if the provider says so, epoch ms. */
  | { kind: 'gone'; reason: string; goneAt: number | undefined }
  /** It will never be taken over this transport: the next one is tried. */
  | { kind: 'rejected'; reason: string }
  /** The same transport again, after this time. */
  | { kind: 'retry'; reason: string; waitMs: number }
  /** Nothing left the house: the same again, and the attempt and the flood limit are given back. */
  | { kind: 'unsent'; reason: string; waitMs: number }

export interface Marking {
  send: ClaimedSend
  mark: Mark
}

const markText = `
WITH outcome AS (
  SELECT * FROM unnest($2::text[], $3::uuid[], $4::text[], $5::smallint[], $6::bigint[], $7::jsonb[], $8::text[],
    $9::timestamptz[], $10::timestamptz[])
    AS o(device, send, kind, position, wait_ms, details, address, registered_at, gone_at)
), locked AS (
  SELECT d.id FROM devices d WHERE d.id IN (SELECT device FROM outcome) ORDER BY d.id FOR NO KEY UPDATE
), buried AS (
  UPDATE transports t SET dead_at = now(), dead_reason = o.details ->> 'reason' FROM outcome o
   WHERE o.kind = 'gone' AND t.device = o.device AND t.position = o.position AND t.address = o.address
     AND t.registered_at = o.registered_at AND t.dead_at IS NULL
     AND (o.gone_at IS NULL OR o.gone_at > t.registered_at)
  RETURNING t.device
), verdict AS (
  SELECT o.*,
    -- "gone" of a registration that is still there but younger than what the provider speaks of: not worth another try
    o.kind = 'rejected' OR o.kind = 'sent' OR (o.kind = 'gone' AND NOT EXISTS (SELECT FROM buried b WHERE b.device = o.device)
      AND EXISTS (SELECT FROM transports t WHERE t.device = o.device AND t.position = o.position
        AND t.address = o.address AND t.registered_at = o.registered_at)) AS leaves
  FROM outcome o JOIN locked l ON l.id = o.device
), marked AS (
  UPDATE pushes p SET
    state = CASE o.kind WHEN 'sent' THEN 'sent' ELSE 'due' END,
    sent_at = CASE o.kind WHEN 'sent' THEN now() ELSE p.sent_at END,
    due_at = CASE
      WHEN o.kind = 'sent' THEN least(now() + p.escalate_ms * interval '1 ms', p.expires_at)
      ELSE least(now() + o.wait_ms * interval '1 ms', p.expires_at) END,
    hop = CASE WHEN o.leaves THEN o.position + 1 ELSE p.hop END,
    attempts = CASE o.kind WHEN 'retry' THEN p.attempts WHEN 'unsent' THEN greatest(p.attempts - 1, 0) ELSE 0 END,
    lease = NULL,
    send_id = CASE WHEN o.kind IN ('retry', 'unsent') THEN p.send_id END,
    collapse = CASE WHEN o.kind IN ('retry', 'unsent') THEN p.collapse END,
    log = push_log(p.log, o.kind, o.details)
    FROM verdict o WHERE p.device = o.device AND p.send_id = o.send AND p.lease = $1::uuid AND p.closed_at IS NULL
  RETURNING p.shard, p.due_at, p.expires_at
), late AS (
  -- closed while it was being sent: the log still tells what went out
  UPDATE pushes p SET log = push_log(p.log, o.kind, o.details), lease = NULL
    FROM verdict o WHERE p.id = (o.details ->> 'push')::uuid AND p.device = o.device AND p.closed_at IS NOT NULL AND p.lease = $1::uuid
), refunded AS (
  UPDATE devices d SET flood_at = d.flood_at - $11::int * interval '1 ms' FROM verdict o WHERE o.kind = 'unsent' AND d.id = o.device
)
SELECT DISTINCT shard, ceil(extract(epoch FROM due_at) * 1000)::bigint::text AS due_ms,
  (extract(epoch FROM now()) * 1000)::bigint::text AS said_ms FROM marked WHERE due_at < expires_at`

/** Step 6 of docs/protocols/push-alarm.md. One send a device. @returns when the rows come due again */
export async function markSends(
  postgres: Postgres,
  lease: string,
  markings: Marking[],
  floodIntervalMs: number,
): Promise<DuePoint[]> {
  const { rows } = await postgres.query<{ shard: number; due_ms: string; said_ms: string }>({
    name: 'push-mark',
    text: markText,
    values: [
      lease,
      markings.map(({ send }) => send.device),
      markings.map(({ send }) => send.sendId),
      markings.map(({ mark }) => mark.kind),
      markings.map(({ send }) => send.transport.position),
      markings.map(({ mark }) => ('waitMs' in mark ? Math.round(mark.waitMs) : 0)),
      markings.map(detailsOf),
      markings.map(({ send }) => send.transport.address),
      markings.map(({ send }) => send.transport.registeredAt),
      markings.map(({ mark }) =>
        mark.kind === 'gone' && mark.goneAt !== undefined ? new Date(mark.goneAt).toISOString() : null,
      ),
      floodIntervalMs,
    ],
  })
  return rows.map((row) => ({ shard: row.shard, dueAt: Number(row.due_ms), saidAt: Number(row.said_ms) }))
}

function detailsOf({ send, mark }: Marking): string {
  return JSON.stringify({
    transport: send.transport.kind,
    position: send.transport.position,
    sendId: send.sendId,
    push: send.push.id,
    ...(send.count > 1 ? { collapsed: send.count } : {}),
    ...('providerId' in mark && mark.providerId !== undefined ? { providerId: mark.providerId } : {}),
    ...('reason' in mark ? { reason: mark.reason } : {}),
  })
}

const renewText = `
WITH held AS (
  SELECT d.id, w.send FROM unnest($2::text[], $3::uuid[]) AS w(device, send) JOIN devices d ON d.id = w.device
   ORDER BY d.id FOR NO KEY UPDATE OF d
)
UPDATE pushes p SET due_at = now() + $4::int * interval '1 ms' FROM held h
 WHERE p.device = h.id AND p.send_id = h.send AND p.lease = $1::uuid AND p.closed_at IS NULL`

/** Keeps the leases of sends that take their time. */
export async function renewLeases(
  postgres: Postgres,
  lease: string,
  sends: ClaimedSend[],
  leaseMs: number,
): Promise<void> {
  await postgres.query({
    name: 'push-renew',
    text: renewText,
    values: [lease, sends.map((each) => each.device), sends.map((each) => each.sendId), leaseMs],
  })
}
