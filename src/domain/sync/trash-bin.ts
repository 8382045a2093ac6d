import { toIso } from '../../core/clock.ts'
import { BatonError, codeOf } from '../../core/errors.ts'
import { SITE_CLOSED } from '../../platform/postgres/errors.ts'
import { type Client, isAway, type Postgres, type Queryable } from '../../platform/postgres/postgres.ts'
import { SITE_IS_REPLICA } from '../../platform/replication/errors.ts'
import type { Part, ReplicatedType } from '../../platform/replication/replicated.ts'
import type { Site } from '../../platform/replication/site.ts'
import type { Types } from './judge.ts'
import { SYNC_TYPE_UNKNOWN, TRASH_NOT_FOUND, TRASH_NOT_RESTORED, TRASH_OCCUPIED } from './protocol-errors.ts'
import { reasonOf } from './receiver-apply.ts'
import { decodePart, discard, type TrashReason } from './trash.ts'

/** What is in the trash, without what stands in it. */
export interface TrashEntry {
  n: number
  type: string
  id: string
  reason: TrashReason
  /** Bytes of the content and of its parts. */
  size: number
  epoch: number
  /** ISO 8601; seven days later it is gone. */
  at: string
}

export interface TrashWish {
  type?: string
  reason?: TrashReason
  /** Default 50. */
  limit?: number
}

export interface Restored extends Pick<TrashEntry, 'n' | 'type' | 'id'> {
  /** `current`: what is there is the same, and nothing was written. */
  state: 'restored' | 'current'
  /** Whether something else was there, which is in the trash now. */
  replaced: boolean
}

/** For people: what was deleted or replaced on this site, and what two sites could not agree on. */
export interface TrashBin {
  /** The newest first. */
  list(wish: TrashWish): Promise<TrashEntry[]>
  /** @throws TRASH_NOT_FOUND */
  show(n: number): Promise<TrashEntry & { content: string; parts: Part[] }>
  /**
   * Writes it back as a change of this site, captured as any other. It stays in the trash, too.
   *
   * @throws TRASH_NOT_FOUND; TRASH_OCCUPIED when something else is there and `replace` is not said; TRASH_NOT_RESTORED;
   *   SITE_IS_REPLICA, SITE_CLOSED
   */
  restore(n: number, options: { replace: boolean }): Promise<Restored>
}

export interface TrashBinOptions {
  postgres: Postgres
  site: Pick<Site, 'read'>
  types: Types
}

interface Row extends Record<string, unknown> {
  n: string
  type: string
  id: string
  reason: TrashReason
  size: string
  epoch: string
  at: Date
}

const columns = `n, type, id, reason, epoch, at, octet_length(content) + (
    SELECT coalesce(sum(octet_length(decode(p ->> 'bytes', 'base64'))), 0) FROM json_array_elements(parts) AS p) AS size`

const entryOf = ({ n, type, id, reason, size, epoch, at }: Row): TrashEntry => ({
  n: Number(n),
  type,
  id,
  reason,
  size: Number(size),
  epoch: Number(epoch),
  at: toIso(at.getTime()),
})

export function createTrashBin(options: TrashBinOptions): TrashBin {
  const { postgres } = options
  return {
    list: async ({ type, reason, limit = 50 }) => {
      const { rows } = await postgres.query<Row>(
        `SELECT ${columns} FROM sync_trash WHERE ($1::text IS NULL OR type = $1) AND ($2::text IS NULL OR reason = $2)
         ORDER BY n DESC LIMIT $3`,
        [type ?? null, reason ?? null, limit],
      )
      return rows.map(entryOf)
    },
    show: (n) => find(postgres, n),
    restore: (n, { replace }) => restoreSoon(options, n, replace),
  }
}

async function find(
  database: Queryable,
  n: number,
): Promise<TrashEntry & { content: string; parts: Part[] }> {
  const { rows } = await database.query<
    Row & { content: string; parts: { sha256: string; bytes: string }[] }
  >(`SELECT ${columns}, content, parts FROM sync_trash WHERE n = $1`, [n])
  const [row] = rows
  if (!row) throw TRASH_NOT_FOUND({ n })
  return { ...entryOf(row), content: row.content, parts: row.parts.map(decodePart) }
}

const serializationFailure = '40001'
const mostTries = 3

/** Of one instant: somebody who changes the object meanwhile makes this fail, so that nothing of his is written over. */
async function restoreSoon(options: TrashBinOptions, n: number, replace: boolean): Promise<Restored> {
  for (let tries = 1; ; tries++) {
    try {
      return await options.postgres.transaction(async (client) => {
        await client.query('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ')
        await admit(options, client)
        return restore(options.types, { n, replace }, client)
      })
    } catch (error) {
      if (codeOf(error) !== serializationFailure) throw error
      if (tries === mostTries)
        throw TRASH_NOT_RESTORED({ n, reason: 'others change it all the time' }, { cause: error })
    }
  }
}

/** The fence before anything else, as every write takes it; also while the triggers are off, so that nobody closes meanwhile. */
async function admit({ site }: TrashBinOptions, client: Client): Promise<void> {
  const { role, intake, leader, epoch } = await site.read(client)
  if (role === 'replica')
    throw SITE_IS_REPLICA({ leader: leader ?? 'another site', epoch, what: 'restoring from its trash' })
  if (intake !== 'open') throw SITE_CLOSED({}, { retryAfterMs: 5_000 })
  await client.query('SELECT change_admit()')
}

async function restore(
  types: Types,
  { n, replace }: { n: number; replace: boolean },
  client: Client,
): Promise<Restored> {
  const { type: name, id, content, parts, epoch } = await find(client, n)
  const type = types.get(name)
  if (!type) throw SYNC_TYPE_UNKNOWN({ type: name })
  const there = (await type.read([id], client)).get(id)
  const restored = { n, type: name, id }
  if (there?.content === content) return { ...restored, state: 'current', replaced: false }
  if (there && !replace) throw TRASH_OCCUPIED({ type: name, id, n })
  if (there) await discard(type, { id, reason: 'replaced', content: there.content, epoch }, client)
  await write(type, { n, arrival: { id, content, parts } }, client)
  return { ...restored, state: 'restored', replaced: there !== undefined }
}

interface Writing {
  n: number
  arrival: Parameters<ReplicatedType['apply']>[0]
}

async function write(type: ReplicatedType, { n, arrival }: Writing, client: Client): Promise<void> {
  try {
    await type.apply(arrival, client)
  } catch (error) {
    const code = codeOf(error)
    if (isAway(error) || code === serializationFailure) throw error
    if (error instanceof BatonError && code === SITE_CLOSED.code) throw error
    throw TRASH_NOT_RESTORED({ n, reason: reasonOf(error) }, { cause: error })
  }
}
