import { createHash } from 'node:crypto'
import type { Readable } from 'node:stream'
import type { Postgres, Queryable } from '../../platform/postgres/postgres.ts'
import type { ReplicatedType } from '../../platform/replication/replicated.ts'
import type { Bodies } from './bodies.ts'
import { areSealed } from './chunk-digests.ts'
import { BODY_INCOMPLETE, BODY_NOT_FOUND } from './errors.ts'

/** A body as sites copy it; its bytes go before. Where its copies lie is each site's own. */
interface BodyContent {
  id: string
  size: number
  /** Base64: digests of the chunks, and their seal. */
  chunks: string
  /** Day of the last put, UTC: retention counts from then at the other site, too. */
  touchedOn: string
}

export interface ReplicatedBodyOptions {
  postgres: Postgres
  /** Where bytes are read that go to others. */
  bodies: Bodies
  /** Where bytes are put that come from a leader: over a database that lets it (createApplyingPostgres). */
  arriving: Bodies
}

/** Whether the object is there. A body without copies is under way, a condemned one is about to go. */
const isThere = `stores <> '{}' AND condemned_at IS NULL`

/**
 * Bodies. One copy is enough for a body to count as arrived, with a wish for the other one: a store that is away at a
 * replica must not hold up what refers to the body. The wish is fulfilled by reads, and by the job `bodies-repair` once
 * this site leads; so are condemned bodies removed by the sweep of then.
 */
export function createReplicatedBody(options: ReplicatedBodyOptions): ReplicatedType {
  const { postgres, bodies, arriving } = options
  return {
    type: 'body',
    absentKind: 'delete',
    read: async (ids, database) =>
      new Map(
        (await readBodies(ids, database)).map((body) => [
          body.id,
          { content: JSON.stringify(body), account: null },
        ]),
      ),
    scan: async (after, limit, database) => {
      const { rows } = await database.query<{ id: string }>(
        `SELECT id FROM bodies WHERE id > $1 AND ${isThere} ORDER BY id LIMIT $2`,
        [after ?? '', limit],
      )
      return rows.map(({ id }) => id)
    },
    open: (id) => open(bodies, postgres, id),
    receive: async (id, size, bytes) => {
      await arriving.put(verified(id, size, bytes), { minCopies: 1 })
    },
    has: async (ids) => {
      // Also a condemned one: its bytes are here, and it is revived.
      const { rows } = await postgres.query<{ id: string }>(
        `SELECT id FROM bodies WHERE id = ANY ($1) AND stores <> '{}'`,
        [ids],
      )
      return new Set(rows.map(({ id }) => id))
    },
    apply: ({ content }, client) => apply(JSON.parse(content) as BodyContent, client),
    remove: async (id, client) => {
      await client.query(`UPDATE bodies SET condemned_at = now() WHERE id = $1 AND ${isThere}`, [id])
    },
  }
}

async function readBodies(ids: readonly string[], database: Queryable): Promise<BodyContent[]> {
  const { rows } = await database.query<{ id: string; size: string; chunks: Buffer; touched_on: string }>({
    name: 'replicated-body-read',
    text: `SELECT id, size, chunks, to_json((touched_at AT TIME ZONE 'UTC')::date) #>> '{}' AS touched_on
      FROM bodies WHERE id = ANY ($1) AND ${isThere}`,
    values: [ids],
  })
  return rows.map(({ id, size, chunks, touched_on: touchedOn }) => ({
    id,
    size: Number(size),
    chunks: chunks.toString('base64'),
    touchedOn,
  }))
}

async function open(
  bodies: Bodies,
  database: Queryable,
  id: string,
): Promise<{ size: number; bytes: Readable } | undefined> {
  // Asked first, since to get a condemned one would revive it.
  if ((await readBodies([id], database)).length === 0) return undefined
  try {
    const { size, stream } = await bodies.get(id)
    return { size, bytes: stream }
  } catch (error) {
    if (BODY_NOT_FOUND.is(error)) return undefined
    throw error
  }
}

/** Ends with an error before its last byte is believed, so that nothing is kept under the id of other bytes. */
async function* verified(id: string, size: number, bytes: Readable): AsyncGenerator<Uint8Array> {
  const hash = createHash('sha256')
  let seen = 0
  for await (const chunk of bytes as AsyncIterable<Buffer>) {
    hash.update(chunk)
    seen += chunk.length
    if (seen > size) break
    yield chunk
  }
  if (seen !== size || hash.digest('hex') !== id) {
    throw BODY_INCOMPLETE({ reason: `what came is not the body ${id} of ${size} bytes` })
  }
}

/**
 * The last instant of the day: never earlier than at the source, so what no sweep could take there, none can here.
 *
 * @throws BODY_INCOMPLETE
 */
async function apply({ id, size, chunks, touchedOn }: BodyContent, client: Queryable): Promise<void> {
  const list = Buffer.from(chunks, 'base64')
  if (!areSealed({ id, size, chunks: list })) throw BODY_INCOMPLETE({ reason: `the row of ${id} is damaged` })
  const { rowCount } = await client.query(
    `UPDATE bodies SET size = $2, chunks = $3, condemned_at = NULL,
        touched_at = ($4::date + 1)::timestamp AT TIME ZONE 'UTC' - interval '1 microsecond'
      WHERE id = $1 AND stores <> '{}'`,
    [id, size, list, touchedOn],
  )
  if (rowCount === 0) throw BODY_INCOMPLETE({ reason: `the bytes of ${id} are not here` })
}
