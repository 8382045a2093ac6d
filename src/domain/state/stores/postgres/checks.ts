import { messageOf } from '../../../../core/errors.ts'
import type { Postgres, Queryable } from '../../../../platform/postgres/postgres.ts'
import {
  STATE_SOURCE_UNREADABLE,
  STATE_TARGET_FOREIGN,
  STATE_TARGET_READ_ONLY,
  STATE_VERSION_UNSUPPORTED,
} from '../../errors.ts'
import { openVersion, type StoreRole } from '../../store.ts'
import { adviceFor } from '../file/checks.ts'

export async function readVersion(database: Queryable): Promise<string | undefined> {
  const { rows } = await database.query<{ version: string }>('SELECT version FROM state_gate')
  return rows[0]?.version
}

export async function writeVersion(database: Queryable, version: string): Promise<void> {
  await database.query(
    `INSERT INTO state_gate (version, owner) VALUES ($1, substring($1 FROM '^baton:(.*)$')) ON CONFLICT (one) DO UPDATE
        SET version = excluded.version, owner = coalesce(excluded.owner, state_gate.owner), admitted = 0,
            reason = NULL, changed_at = now()`,
    [version],
  )
}

export async function check(
  database: Postgres,
  place: string,
  role: StoreRole,
  owner: string | undefined,
): Promise<void> {
  const { rows } = await database
    .query<{ present: boolean; read_only: string }>(
      `SELECT to_regclass('state_gate') IS NOT NULL AS present, current_setting('transaction_read_only') AS read_only`,
    )
    .catch((error: unknown) => {
      throw STATE_SOURCE_UNREADABLE({ place, reason: messageOf(error) }, { cause: error })
    })
  if (!rows[0]?.present) {
    const reason = 'it lacks the tables of Baton; run `baton release` against it first'
    throw role === 'source'
      ? STATE_SOURCE_UNREADABLE({ place, reason })
      : STATE_TARGET_FOREIGN({ place, reason })
  }
  if (role === 'target' && rows[0].read_only === 'on') {
    throw STATE_TARGET_READ_ONLY({ place, reason: 'the server is read-only' })
  }
  const version = (await readVersion(database)) ?? openVersion
  if (owner !== undefined && version === owner) return
  if (version !== openVersion) {
    if (role === 'source') throw STATE_VERSION_UNSUPPORTED({ place, version, advice: adviceFor(version) })
    throw STATE_TARGET_FOREIGN({ place, reason: adviceFor(version) })
  }
  if (role === 'source') return
  const full = await database.query<{ full: boolean }>(
    'SELECT EXISTS (SELECT FROM states) OR EXISTS (SELECT FROM state_links) AS full',
  )
  if (full.rows[0]?.full) throw STATE_TARGET_FOREIGN({ place, reason: 'it holds states already' })
}

/** Versions only grow, so no two writes can cancel out in their sum. */
export async function readActivity(database: Queryable): Promise<string> {
  const { rows } = await database.query<{ activity: string }>(
    `SELECT (SELECT coalesce(sum(version), 0) FROM state_devices)
         || ' ' || (SELECT count(*) || ' ' || coalesce(sum(id), 0) FROM state_links) AS activity`,
  )
  return rows[0]?.activity ?? ''
}
