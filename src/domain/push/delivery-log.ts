import type { Postgres } from '../../platform/postgres/postgres.ts'
import type { DeliveryLog, Milestone, PushState } from './push.ts'

export interface Pushes {
  /** What became of a push, device by device. Undefined: there is none of that id. */
  show(id: string): Promise<DeliveryLog | undefined>
  /** The latest pushes of a device, newest first. */
  ofDevice(device: string, limit: number): Promise<DeliveryLog[]>
  /** Takes back what no provider has been given yet. @returns for how many devices, or undefined when there is no such push */
  withdraw(id: string): Promise<{ withdrawn: number; devices: number } | undefined>
}

/** What a delivery log is made of. */
export interface PushRow {
  id: string
  device: string
  state: PushState
  priority: boolean
  accepted_at: Date
  delivered_at: Date | null
  closed_at: Date | null
  log: { name: string; at: number; [detail: string]: unknown }[]
}

export const columns = 'id::text, device, state, priority, accepted_at, delivered_at, closed_at, log'
const maxShown = 1_000

export function createPushes(postgres: Postgres): Pushes {
  return {
    show: async (id) => {
      const { rows } = await postgres.query<PushRow>(
        `SELECT ${columns} FROM pushes WHERE id = $1 ORDER BY device LIMIT ${maxShown}`,
        [id],
      )
      if (rows.length === 0) return undefined
      const count = rows.length < maxShown ? rows.length : await countDevices(postgres, id)
      return { id, count, devices: rows.map(viewOf) }
    },
    ofDevice: async (device, limit) => {
      const { rows } = await postgres.query<PushRow>(
        `SELECT ${columns} FROM pushes WHERE device = $1 AND closed_at IS NULL ORDER BY seq DESC LIMIT $2`,
        [device, limit],
      )
      return rows.map((row) => ({ id: row.id, count: 1, devices: [viewOf(row)] }))
    },
    withdraw: async (id) => {
      const { rows } = await postgres.query<{ devices: number; withdrawn: number }>(withdrawText, [id])
      const [found] = rows
      return found && found.devices > 0 ? found : undefined
    },
  }
}

const withdrawText = `
WITH affected AS (
  SELECT device FROM pushes WHERE id = $1
), locked AS (
  SELECT id FROM devices WHERE id IN (SELECT device FROM affected) ORDER BY id FOR NO KEY UPDATE
), withdrawn AS (
  UPDATE pushes p SET state = 'withdrawn', closed_at = now(), log = push_log(p.log, 'withdrawn') FROM locked l
   WHERE p.id = $1 AND p.device = l.id AND p.closed_at IS NULL
     AND p.state IN ('pending', 'delivered', 'due', 'undeliverable')
  RETURNING p.device
)
SELECT (SELECT count(*)::int FROM affected) AS devices, (SELECT count(*)::int FROM withdrawn) AS withdrawn`

async function countDevices(postgres: Postgres, id: string): Promise<number> {
  const { rows } = await postgres.query<{ n: number }>(
    'SELECT count(*)::int AS n FROM pushes WHERE id = $1',
    [id],
  )
  return rows[0]?.n ?? 0
}

export function viewOf(row: PushRow): DeliveryLog['devices'][number] {
  const milestones: Milestone[] = [
    { name: 'accepted', at: row.accepted_at.toISOString(), priority: row.priority ? 'priority' : 'normal' },
  ]
  if (row.delivered_at) milestones.push({ name: 'delivered', at: row.delivered_at.toISOString() })
  for (const { name, at, push: _push, ...details } of row.log) {
    milestones.push({ name, at: new Date(at).toISOString(), ...details })
  }
  if (row.state === 'confirmed' && row.closed_at) {
    milestones.push({ name: 'confirmed', at: row.closed_at.toISOString() })
  }
  milestones.sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0))
  return { device: row.device, state: row.state, milestones }
}
