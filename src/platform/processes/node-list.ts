import { toIso } from '../../core/clock.ts'
import type { Queryable } from '../postgres/postgres.ts'
import { deadMs, type NodeChild } from './node-heartbeat.ts'

/** A process of the site as its last heartbeat described it. */
export interface ListedNode {
  id: string
  kind: string
  host: string
  pid: number
  version: string
  state: string
  startedAt: string
  heartbeatAt: string
  /** By the clock of the database. */
  heartbeatAgeMs: number
  /** Silent for longer than a living one ever is. Its row stays for a day. */
  dead: boolean
  children: NodeChild[]
}

interface NodeRow {
  id: string
  kind: string
  host: string
  pid: number
  version: string
  state: string
  started_at: Date
  heartbeat_at: Date
  age_ms: number
  children: NodeChild[] | null
}

const maxListed = 500

/** Those that live first. */
export async function listNodes(postgres: Queryable): Promise<ListedNode[]> {
  const { rows } = await postgres.query<NodeRow & Record<string, unknown>>(
    `SELECT id, kind, host, pid, version, state, started_at, heartbeat_at, children,
       greatest(0, extract(epoch FROM clock_timestamp() - heartbeat_at) * 1000)::float8 AS age_ms
     FROM nodes ORDER BY heartbeat_at < now() - interval '${deadMs} milliseconds', kind, started_at, id
     LIMIT ${maxListed}`,
  )
  return rows.map((row) => ({
    id: row.id,
    kind: row.kind,
    host: row.host,
    pid: row.pid,
    version: row.version,
    state: row.state,
    startedAt: toIso(row.started_at.getTime()),
    heartbeatAt: toIso(row.heartbeat_at.getTime()),
    heartbeatAgeMs: row.age_ms,
    dead: row.age_ms > deadMs,
    children: Array.isArray(row.children) ? row.children : [],
  }))
}
