import type { Clock } from '../../core/clock.ts'
import type { Client, Postgres } from '../../platform/postgres/postgres.ts'
import type { ReplicatedType } from '../../platform/replication/replicated.ts'
import { typesByName } from './judge.ts'
import { rereadBite } from './reread-bite.ts'

export interface Differing {
  type: string
  id: string
  /** What `changes` says; null: that it is not there. */
  expected: string | null
  /** What is there. */
  found: string | null
}

/** Reads every object anew and compares it with `changes`: finds what was written past the triggers. Changes nothing. */
export interface Reread {
  /** Ends early, with what it has by then, when the signal aborts. */
  run(options: { signal: AbortSignal; shard?: number }): Promise<{ objects: number; differing: Differing[] }>
}

export interface RereadOptions {
  postgres: Postgres
  types: readonly ReplicatedType[]
  clock: Clock
  /** Objects of a bite. Default 500. */
  batch?: number
  /** Most objects a second; others work here too. Default 5,000. */
  perSecond?: number
}

/** More would help nobody, and an answer must have an end. */
const maxDiffering = 10_000

export function createReread(options: RereadOptions): Reread {
  const { postgres, types, clock, batch = 500, perSecond = 5_000 } = options
  const byName = typesByName(types)
  const bite = (type: string, after: string | null, shard: number | undefined) =>
    atOneInstant(postgres, async (client) => {
      const read = await rereadBite(byName, { type, after, limit: batch }, client)
      return { ...read, differing: await settled(client, read.differing, shard) }
    })

  return {
    run: async ({ signal, shard }) => {
      const total: { objects: number; differing: Differing[] } = { objects: 0, differing: [] }
      for (const { type } of types) {
        for (let after: string | null = null, isLast = false; !isLast && !signal.aborted; ) {
          const startedMs = clock.monotonicMs()
          const { objects, next, differing } = await bite(type, after, shard)
          total.objects += objects
          total.differing.push(...differing.slice(0, maxDiffering - total.differing.length))
          after = next
          isLast = next === null
          await clock.sleep((objects / perSecond) * 1_000 - (clock.monotonicMs() - startedMs), signal)
        }
      }
      return total
    },
  }
}

/** Content, log and what is pending belong together only as one snapshot shows them. */
const atOneInstant = <T>(postgres: Postgres, work: (client: Client) => Promise<T>): Promise<T> =>
  postgres.transaction(async (client) => {
    await client.query('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY')
    return work(client)
  })

/** Without what is to be numbered, or to be handed over by the seeding: that differs rightly. */
async function settled(
  client: Client,
  differing: Differing[],
  shard: number | undefined,
): Promise<Differing[]> {
  if (differing.length === 0) return []
  const { rows } = await client.query<{ place: string }>(
    `SELECT d.place FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS d (type, id, place)
     WHERE NOT EXISTS (SELECT FROM change_pending p
         WHERE p.shard = change_shard(change_anchor(d.type, d.id)) AND p.type = d.type AND p.id = d.id)
       AND ($3::int IS NULL OR change_shard(change_anchor(d.type, d.id)) = $3)
       AND (EXISTS (SELECT FROM sync_seeds s WHERE s.done AND s.type IN (d.type, '*'))
         OR EXISTS (SELECT FROM changes c WHERE c.type = d.type COLLATE "C" AND c.id = d.id COLLATE "C"))`,
    [differing.map(({ type }) => type), differing.map(({ id }) => id), shard ?? null],
  )
  const places = new Set(rows.map(({ place }) => Number(place) - 1))
  return differing.filter((_each, place) => places.has(place))
}
