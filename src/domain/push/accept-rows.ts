import type { Client, Postgres, Queryable } from '../../platform/postgres/postgres.ts'
import type { NewPush } from './push.ts'

/** What one statement of acceptance did for the requests that it served. */
export interface AcceptedRows {
  /** Devices of each push by its place in the list. A push of a refused request is not among them. */
  devices: Map<number, number>
  /** By request, the devices that do not exist; nothing of such a request was taken. */
  unknown: Map<number, string[]>
  /** Devices that listen, by the node that holds them. */
  listening: Map<string, string[]>
  /** Where rows come due. */
  due: DuePoint[]
}

/** Something in this shard comes due after so many ms, counted from when the statement ran. */
export interface DuePoint {
  shard: number
  /** Epoch ms of the database. */
  dueAt: number
  /** The database's time when it said so, epoch ms. */
  saidAt: number
}

/**
 * Step 1 of docs/protocols/push-alarm.md. `requests` tells for each push which request it came with. Within a
 * transaction of the caller's the rows stand or fall with it.
 */
export async function insertPushes(
  database: Postgres | Client,
  pushes: NewPush[],
  requests: number[],
): Promise<AcceptedRows> {
  const values = valuesOf(pushes, requests)
  const lockFirst = pushes.some((push) => push.topic !== undefined)
  if (!lockFirst) return readRows(await insert(database, values))
  // What a former holder of a device's lock has inserted under the same topic is seen only by a statement that
  // begins after the lock was got.
  const lockThenInsert = async (client: Client): Promise<AcceptedRows> => {
    await client.query({ name: 'push-lock-targets', text: lockTargets, values: [values[2], values[3]] })
    return readRows(await insert(client, values))
  }
  return 'transaction' in database ? database.transaction(lockThenInsert) : lockThenInsert(database)
}

const valuesOf = (pushes: NewPush[], requests: number[]): unknown[][] => [
  requests,
  pushes.map((push) => push.id),
  pushes.map(kindOf),
  pushes.map(nameOf),
  pushes.map((push) => push.topic ?? null),
  pushes.map((push) => push.payload ?? null),
  pushes.map((push) => push.priority),
  pushes.map((push) => push.ttlMs),
  pushes.map((push) => push.confirmMs ?? null),
  pushes.map((push) => push.escalateMs ?? null),
]

const kindOf = ({ to }: NewPush): string => ('device' in to ? 'device' : 'user' in to ? 'user' : 'group')
const nameOf = ({ to }: NewPush): string => ('device' in to ? to.device : 'user' in to ? to.user : to.group)

const lockTargets = `
SELECT id FROM devices WHERE id IN (
  SELECT t.name FROM unnest($1::text[], $2::text[]) AS t(kind, name) WHERE t.kind = 'device'
  UNION SELECT d.id FROM unnest($1::text[], $2::text[]) AS t(kind, name) JOIN devices d ON d.user_id = t.name
   WHERE t.kind = 'user'
  UNION SELECT g.device FROM unnest($1::text[], $2::text[]) AS t(kind, name)
   JOIN device_groups g ON g.group_id = t.name WHERE t.kind = 'group')
ORDER BY id FOR NO KEY UPDATE`

/** The confirmation timeout of a device that has none from the sender: twice its reconnect time, clamped, ms. */
const adaptive = 'least(greatest(2 * l.reconnect_ms, 2000), 60000)'

const insertText = `
WITH message AS (
  SELECT * FROM unnest($1::int[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::boolean[],
    $8::bigint[], $9::int[], $10::int[]) WITH ORDINALITY
    AS m(request, id, kind, name, topic, payload, priority, ttl_ms, confirm_ms, escalate_ms, place)
), unknown AS (
  SELECT m.request, m.name FROM message m
   WHERE m.kind = 'device' AND NOT EXISTS (SELECT FROM devices d WHERE d.id = m.name)
), target AS (
  SELECT m.place, m.name AS device FROM message m
   WHERE m.kind = 'device' AND NOT EXISTS (SELECT FROM unknown u WHERE u.request = m.request)
  UNION ALL SELECT m.place, d.id FROM message m JOIN devices d ON d.user_id = m.name
   WHERE m.kind = 'user' AND NOT EXISTS (SELECT FROM unknown u WHERE u.request = m.request)
  UNION ALL SELECT m.place, g.device FROM message m JOIN device_groups g ON g.group_id = m.name
   WHERE m.kind = 'group' AND NOT EXISTS (SELECT FROM unknown u WHERE u.request = m.request)
), locked AS (
  SELECT id, shard, reconnect_ms, listen_node FROM devices WHERE id IN (SELECT device FROM target)
   ORDER BY id FOR NO KEY UPDATE
), fresh AS (
  SELECT m.*, l.id AS device, l.shard, now() + m.ttl_ms * interval '1 ms' AS expires_at,
    CASE WHEN m.priority THEN now() + coalesce(m.confirm_ms, ${adaptive}) * interval '1 ms' END AS confirm_by,
    -- of several with the same topic in one batch the last one stays open
    m.topic IS NOT NULL AND row_number() OVER (PARTITION BY l.id, m.topic ORDER BY m.place DESC) > 1 AS outdated
  FROM target t JOIN locked l ON l.id = t.device JOIN message m ON m.place = t.place
), replaced AS (
  UPDATE pushes p SET state = 'replaced', closed_at = now(), log = push_log(log, 'replaced')
    FROM (SELECT DISTINCT device, topic FROM fresh WHERE topic IS NOT NULL) f
   WHERE p.device = f.device AND p.topic = f.topic AND p.closed_at IS NULL
  RETURNING p.device, p.topic, CASE WHEN p.priority AND p.sent_at IS NULL AND p.lease IS NULL THEN p.due_at END AS due_at
), earlier AS (
  SELECT device, topic, min(due_at) AS due_at FROM replaced GROUP BY device, topic
), inserted AS (
  INSERT INTO pushes (id, device, shard, state, priority, topic, payload, expires_at, due_at, closed_at, escalate_ms)
  SELECT f.id, f.device, f.shard, CASE WHEN f.outdated THEN 'replaced' ELSE 'pending' END, f.priority, f.topic,
    f.payload::json, f.expires_at, least(f.expires_at, f.confirm_by, CASE WHEN f.priority THEN e.due_at END),
    CASE WHEN f.outdated THEN now() END, f.escalate_ms
  FROM fresh f LEFT JOIN earlier e ON e.device = f.device AND e.topic = f.topic
  ORDER BY f.place
  ON CONFLICT (id, device) DO NOTHING
  RETURNING shard, due_at, priority AND closed_at IS NULL AND due_at < expires_at AS armed
), clock AS (
  SELECT (extract(epoch FROM now()) * 1000)::bigint AS ms
)
SELECT 'count' AS what, place AS a, count(*) AS b, NULL AS c, NULL::text[] AS d FROM target GROUP BY place
UNION ALL SELECT 'unknown', request, 0, NULL, array_agg(name) FROM unknown GROUP BY request
UNION ALL SELECT 'listening', 0, 0, listen_node, array_agg(id) FROM locked WHERE listen_node IS NOT NULL GROUP BY listen_node
UNION ALL SELECT 'due', shard, ceil(extract(epoch FROM due_at) * 1000)::bigint, (SELECT ms::text FROM clock), NULL
  FROM inserted WHERE armed GROUP BY 2, 3`

type Found = { what: string; a: string; b: string; c: string | null; d: string[] | null }

async function insert(database: Queryable, values: unknown[]): Promise<Found[]> {
  const { rows } = await database.query<Found>({ name: 'push-accept', text: insertText, values })
  return rows
}

function readRows(rows: Found[]): AcceptedRows {
  const accepted: AcceptedRows = { devices: new Map(), unknown: new Map(), listening: new Map(), due: [] }
  for (const { what, a, b, c, d } of rows) {
    if (what === 'count') accepted.devices.set(Number(a) - 1, Number(b))
    else if (what === 'unknown') accepted.unknown.set(Number(a), d ?? [])
    else if (what === 'listening') accepted.listening.set(c ?? '', d ?? [])
    else accepted.due.push({ shard: Number(a), dueAt: Number(b), saidAt: Number(c) })
  }
  return accepted
}
