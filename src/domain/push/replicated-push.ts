import { isId } from '../../core/ids.ts'
import type { Queryable } from '../../platform/postgres/postgres.ts'
import { accountOf } from '../../platform/replication/account.ts'
import { instantOf, instantText } from '../../platform/replication/instants.ts'
import type { ReplicatedType } from '../../platform/replication/replicated.ts'
import { shardOf } from './shard.ts'

/**
 * A push for a device as sites copy it. Whatever stands here has to be watched by the trigger `change_updated` of pushes
 * (migration 0050), else a change of it would not be told.
 */
interface PushContent {
  id: string
  device: string
  /** Order of acceptance within the device. */
  seq: string
  /**
   * `pending`: it waits for its confirmation, delivered or not, until `dueAt`. `due`: the cloud side has it, and goes on
   * where the other site opens, with the same `sendId` if it had one. `sent`, and the closed states.
   */
  state: string
  priority: boolean
  topic: string | null
  /** JSON as it was stored; of a closed push none, since nobody can get it any more. */
  payload: string | null
  acceptedAt: string
  expiresAt: string
  /** Of `pending` the confirmation timeout, of `sent` the next escalation or the end of its life. */
  dueAt: string | null
  closedAt: string | null
  /** Of a closed push. */
  deliveredAt: string | null
  hop: number
  escalateMs: number | null
  sentAt: string | null
  sendId: string | null
  collapse: string | null
  /** Milestones, JSON; of `sent` and of closed ones. */
  log: string | null
}

/** In the order of the content and of the parameters. */
const fields = [
  'id',
  'device',
  'seq',
  'state',
  'priority',
  'topic',
  'payload',
  'acceptedAt',
  'expiresAt',
  'dueAt',
  'closedAt',
  'deliveredAt',
  'hop',
  'escalateMs',
  'sentAt',
  'sendId',
  'collapse',
  'log',
] satisfies (keyof PushContent)[]

const isClosed = 'p.closed_at IS NOT NULL'
const readText = `
  SELECT p.id, p.device, p.seq::text AS seq,
    CASE WHEN ${isClosed} OR p.state = 'sent' THEN p.state
      WHEN p.state IN ('pending', 'delivered') THEN 'pending' ELSE 'due' END AS state,
    p.priority, p.topic, CASE WHEN ${isClosed} THEN NULL ELSE p.payload::text END AS payload,
    ${instantText('p.accepted_at')} AS "acceptedAt", ${instantText('p.expires_at')} AS "expiresAt",
    ${instantText(`CASE WHEN p.state IN ('pending', 'delivered', 'sent') THEN p.due_at END`)} AS "dueAt",
    ${instantText('p.closed_at')} AS "closedAt",
    ${instantText(`CASE WHEN ${isClosed} THEN p.delivered_at END`)} AS "deliveredAt",
    p.hop, p.escalate_ms AS "escalateMs", ${instantText('p.sent_at')} AS "sentAt", p.send_id AS "sendId", p.collapse,
    CASE WHEN ${isClosed} OR p.state = 'sent' THEN p.log::text END AS log, d.user_id
  FROM unnest($1::uuid[], $2::text[]) AS w (id, device)
   JOIN pushes p ON p.id = w.id AND p.device = w.device LEFT JOIN devices d ON d.id = p.device`

/**
 * The device's row is taken first, as by all who change pushes (docs/protocols/push-alarm.md). What is to go on at once
 * is due at once: whoever opens here finds it. Numbers of deliveries, tries and leases are not copied.
 */
const applyText = `
  WITH held AS (
    SELECT id FROM devices WHERE id = $2 FOR NO KEY UPDATE
  )
  INSERT INTO pushes AS p (id, device, seq, state, priority, topic, payload, accepted_at, expires_at, due_at, closed_at,
    delivered_at, hop, escalate_ms, sent_at, send_id, collapse, log, shard)
  OVERRIDING SYSTEM VALUE
  SELECT $1::uuid, $2, $3::bigint, $4, $5::boolean, $6, $7::json, ${instantOf('$8')}, ${instantOf('$9')},
    coalesce(${instantOf('$10')}, CASE WHEN $11::text IS NULL THEN now() ELSE ${instantOf('$9')} END), ${instantOf('$11')},
    ${instantOf('$12')}, $13::smallint, $14::integer, ${instantOf('$15')}, $16::uuid, $17, coalesce($18::jsonb, '[]'),
    $19::smallint
  FROM (SELECT) AS one LEFT JOIN held ON true
  ON CONFLICT (id, device) DO UPDATE SET (state, priority, topic, payload, accepted_at, expires_at, due_at, closed_at,
      delivered_at, hop, escalate_ms, sent_at, send_id, collapse, log, delivered_seq, lease, attempts)
    = (excluded.state, excluded.priority, excluded.topic, excluded.payload, excluded.accepted_at, excluded.expires_at,
      excluded.due_at, excluded.closed_at, excluded.delivered_at, excluded.hop, excluded.escalate_ms, excluded.sent_at,
      excluded.send_id, excluded.collapse, excluded.log, NULL, NULL, 0)
    WHERE p.seq = excluded.seq
  RETURNING (SELECT last_value FROM pushes_seq_seq) AS last`

type PushRow = PushContent & { user_id: string | null; [column: string]: unknown }

/**
 * Pushes, one object for each device of a message; its id is `<id>/<device>`. A closed one is copied without its payload,
 * for the sake of who asks what became of it. Retention is what removes them.
 */
export function createReplicatedPush(): ReplicatedType {
  return {
    type: 'push',
    absentKind: 'forget',
    read: async (ids, database) => {
      const keys = ids.map(keyOf).filter((key) => key !== undefined)
      const { rows } = await database.query<PushRow>({
        name: 'replicated-push-read',
        text: readText,
        values: [keys.map(({ id }) => id), keys.map(({ device }) => device)],
      })
      return new Map(
        rows.map((row) => {
          const account =
            row.user_id === null ? accountOf('device', row.device) : accountOf('user', row.user_id)
          return [`${row.id}/${row.device}`, { content: JSON.stringify(row, fields), account }]
        }),
      )
    },
    scan: (after, limit, database) => scan(after, limit, database),
    apply: ({ content }, client) => apply(JSON.parse(content) as PushContent, client),
    remove: async (id, client) => {
      const key = keyOf(id)
      if (key) await client.query('DELETE FROM pushes WHERE id = $1 AND device = $2', [key.id, key.device])
    },
  }
}

/** A device's id may have slashes, a push's has none. */
function keyOf(text: string): { id: string; device: string } | undefined {
  const at = text.indexOf('/')
  const id = text.slice(0, at)
  return at > 0 && isId(id) ? { id, device: text.slice(at + 1) } : undefined
}

async function scan(after: string | undefined, limit: number, database: Queryable): Promise<string[]> {
  const key = after === undefined ? undefined : keyOf(after)
  // Along the primary key; of a message for very many devices those are sorted for each page.
  const { rows } = await database.query<{ id: string }>(
    `SELECT id || '/' || device AS id FROM pushes
      ${key ? `WHERE id >= $2 AND (id > $2 OR device COLLATE "C" > $3)` : ''}
     ORDER BY pushes.id, device COLLATE "C" LIMIT $1`,
    key ? [limit, key.id, key.device] : [limit],
  )
  return rows.map(({ id }) => id)
}

/** Numbers that are left free above the highest one that came; also for what a lost leader may still have given. */
const headroom = 1_000_000
const seqLock = 0x7075_7173

async function apply(push: PushContent, client: Queryable): Promise<void> {
  const write = (): Promise<{ rows: { last: string }[] }> =>
    client.query({
      name: 'replicated-push-apply',
      text: applyText,
      values: [...fields.map((field) => push[field]), shardOf(push.device)],
    })
  let { rows } = await write()
  if (rows.length === 0) {
    // It stands here under another number, which cannot be changed.
    await client.query('DELETE FROM pushes WHERE id = $1 AND device = $2', [push.id, push.device])
    rows = (await write()).rows
  }
  const seq = Number(push.seq)
  if (Number(rows[0]?.last) < seq + headroom / 2) await moveSequence(client, seq + headroom)
}

/**
 * What is accepted here later has to come after what was copied. Seldom, so that it may take a lock: without it a
 * sequence that another one has moved further could be moved back.
 */
async function moveSequence(client: Queryable, to: number): Promise<void> {
  await client.query('SELECT pg_advisory_xact_lock($1)', [seqLock])
  await client.query(`SELECT setval('pushes_seq_seq', $1) FROM pushes_seq_seq WHERE last_value < $1`, [to])
}
