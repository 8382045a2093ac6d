import { messageOf } from '../../../core/errors.ts'
import type { Postgres } from '../../../platform/postgres/postgres.ts'
import type { BodyStore } from '../body-store.ts'
import type { BodiesStatus, StoreStatus } from '../upkeep.ts'

export async function readStatus(postgres: Postgres, stores: readonly BodyStore[]): Promise<BodiesStatus> {
  const [counts, copies, states] = await Promise.all([
    readCounts(postgres),
    copiesByStore(postgres),
    Promise.all(stores.map(stateOf)),
  ])
  const configured = stores.map(
    (store, index): StoreStatus => ({
      name: store.name,
      state: states[index] ?? '',
      draining: store.draining ?? false,
      copies: copies.get(store.name) ?? 0,
      configured: true,
    }),
  )
  const gone = [...copies].filter(([name]) => stores.every((store) => store.name !== name))
  const others = gone.map(
    ([name, count]): StoreStatus => ({
      name,
      state: 'not among BODY_STORES',
      draining: false,
      copies: count,
      configured: false,
    }),
  )
  return { ...counts, stores: [...configured, ...others] }
}

async function stateOf(store: BodyStore): Promise<string> {
  try {
    // Recognizes the place too: see guarded-store.ts.
    await store.stat('0'.repeat(64))
    return 'ok'
  } catch (error) {
    return messageOf(error).startsWith('There is no body') ? 'ok' : messageOf(error)
  }
}

async function copiesByStore(postgres: Postgres): Promise<Map<string, number>> {
  const { rows } = await postgres.query<{ name: string; copies: string }>(
    'SELECT name, count(*) AS copies FROM bodies, unnest(stores) AS name GROUP BY name ORDER BY name',
  )
  return new Map(rows.map(({ name, copies }) => [name, Number(copies)]))
}

async function readCounts(postgres: Postgres): Promise<Omit<BodiesStatus, 'stores'>> {
  const { rows } = await postgres.query<Record<string, string | null>>(
    `SELECT b.*, r.*, s.passes, s.checked, s.bad, s.missing, s.lost AS lost_met, to_char(s.ran_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS ran_at,
       CASE WHEN s.canary IS NULL THEN 'none' WHEN s.canary_found_at IS NOT NULL THEN 'found'
            WHEN s.canary_planted_at < now() - interval '1 day' THEN 'overdue' ELSE 'planted' END AS canary
     FROM body_scrub s,
       (SELECT count(*) AS bodies, coalesce(sum(size), 0) AS bytes, count(*) FILTER (WHERE checked_at IS NULL) AS unchecked,
          count(condemned_at) AS condemned FROM bodies WHERE stores <> '{}') b,
       (SELECT count(*) AS waiting, coalesce(extract(epoch FROM now() - min(since)) * 1000, 0)::bigint AS oldest,
          count(*) FILTER (WHERE error = 'no sound copy is left') AS lost FROM body_repairs) r`,
  )
  const row = rows[0] ?? {}
  const number = (name: string): number => Number(row[name] ?? 0)
  return {
    bodies: number('bodies'),
    bytes: number('bytes'),
    condemned: number('condemned'),
    repairs: { waiting: number('waiting'), oldestMs: number('oldest'), lost: number('lost') },
    scrub: {
      passes: number('passes'),
      checked: number('checked'),
      bad: number('bad'),
      missing: number('missing'),
      lost: number('lost_met'),
      ranAt: row['ran_at'] ?? null,
      neverChecked: number('unchecked'),
      canary: (row['canary'] ?? 'none') as BodiesStatus['scrub']['canary'],
    },
  }
}
