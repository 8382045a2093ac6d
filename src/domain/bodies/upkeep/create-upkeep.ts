import type { Clock } from '../../../core/clock.ts'
import { messageOf } from '../../../core/errors.ts'
import type { Log } from '../../../platform/log.ts'
import type { Postgres } from '../../../platform/postgres/postgres.ts'
import type { BodyStore } from '../body-store.ts'
import type { Catalog } from '../catalog.ts'
import { BODY_STORE_INVALID } from '../errors.ts'
import type { RepairReport } from '../repair.ts'
import type { BodyUpkeep, Repaired } from '../upkeep.ts'
import { createAsking, readLook, readRepairs } from './look.ts'
import { rebalance } from './rebalance.ts'
import { scrub } from './scrub.ts'
import { readStatus } from './status.ts'
import { sweep } from './sweep.ts'

export interface UpkeepParts {
  /** As they were configured. */
  raw: readonly BodyStore[]
  /** The same, guarded. */
  stores: readonly BodyStore[]
  active: readonly BodyStore[]
  copies: number
  catalog: Catalog
  postgres: Postgres
  clock: Clock
  log: Log
  retentionMs: number
  repair(id: string): Promise<RepairReport>
  put(source: AsyncIterable<Uint8Array>): Promise<{ id: string }>
}

/** Longer than a repair takes, so that two workers do not do the same one. */
const leaseMs = 600_000

export function createUpkeep(parts: UpkeepParts): BodyUpkeep {
  return {
    repairDue: () => repairDue(parts),
    scrub: (options) => scrub(parts, options),
    rebalance: () => rebalance(parts.postgres, parts.active, parts.copies),
    sweep: (options) => sweep(parts, options),
    status: () => readStatus(parts.postgres, parts.stores),
    look: () => readLook(parts.postgres),
    askStores: createAsking(parts.stores, parts.clock),
    repairs: () => readRepairs(parts.postgres),
    adopt: (store) => adopt(parts, store),
  }
}

async function* repairDue({ catalog, repair, log, postgres }: UpkeepParts): AsyncGenerator<Repaired> {
  for (;;) {
    const [id] = await catalog.claimDue(1, leaseMs)
    if (id === undefined) return
    const { rows } = await postgres.query<{ size: string }>('SELECT size FROM bodies WHERE id = $1', [id])
    try {
      yield { id, size: Number(rows[0]?.size ?? 0), report: await repair(id) }
    } catch (error) {
      // It is due again when its lease ends.
      log.warn({ body: id, error: messageOf(error) }, 'could not repair a body')
    }
  }
}

async function adopt({ raw, postgres }: UpkeepParts, name: string): Promise<{ wished: number }> {
  const store = raw.find((each) => each.name === name)
  if (!store) throw BODY_STORE_INVALID({ url: name, reason: 'it is not among BODY_STORES' })
  const identity = await store.identity()
  return postgres.transaction(async (client) => {
    await client.query(
      `INSERT INTO body_stores (name, identity) VALUES ($1, $2)
       ON CONFLICT (name) DO UPDATE SET identity = EXCLUDED.identity, first_seen_at = now()`,
      [name, identity],
    )
    const { rowCount } = await client.query(
      `INSERT INTO body_repairs (body, reason) SELECT id, 'its store was replaced' FROM bodies WHERE $1 = ANY (stores)
       ORDER BY id ON CONFLICT (body) DO UPDATE SET wish = body_repairs.wish + 1, due_at = now()`,
      [name],
    )
    return { wished: rowCount ?? 0 }
  })
}
