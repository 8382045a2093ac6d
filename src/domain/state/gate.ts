import { createHash } from 'node:crypto'
import type { Queryable } from '../../platform/postgres/postgres.ts'
import { STATE_GATED } from './errors.ts'
import { openVersion } from './store.ts'

/** The gate of Baton's own store. */
export interface StateGate {
  /** One look at one row, for each request: a gate that closes is closed for all at once. @throws STATE_GATED */
  assertOpen(device: string): Promise<void>
}

/** What Z-Push says as well (lib/exceptions/serviceunavailableexception.php). */
const retryAfterMs = 300_000

export function createStateGate(database: Queryable): StateGate {
  return {
    assertOpen: async (device) => {
      const { rows } = await database.query<{ version: string; reason: string | null; admitted: number }>({
        name: 'state-gate',
        text: 'SELECT version, reason, admitted FROM state_gate',
      })
      const gate = rows[0]
      if (!gate || gate.version === openVersion || partOf(device) < gate.admitted) return
      const why = gate.reason === 'storm' ? 'too many devices lack states' : 'states are being moved'
      throw STATE_GATED({ reason: why }, { retryAfterMs })
    },
  }
}

/** 0 to 99, always the same of a device: whoever is let in first stays in. */
export const partOf = (device: string): number =>
  createHash('sha256').update(device).digest().readUInt32BE(0) % 100
