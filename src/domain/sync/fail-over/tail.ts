import { sha256 } from '../../../core/digest.ts'
import type { Client, Postgres, Queryable } from '../../../platform/postgres/postgres.ts'
import type { ReplicatedType } from '../../../platform/replication/replicated.ts'
import { discard, encodePart } from '../trash.ts'
import type { CandidatesAnswer, CandidatesRequest } from '../wire.ts'
import type { Heir } from './other-site.ts'

/** What became of the objects that only this site had. */
export interface TailReport {
  [state: string]: number
}

/**
 * Hands over what this site wrote as the leader and the one that leads now never got: `sync_tail`. An object leaves the
 * table with what the new leader said of it, so whoever dies in between sends it again, which is no harm.
 */
export interface Tail {
  /** A bite. @returns the states of what was sent; undefined when nothing is left */
  hand(heir: Heir): Promise<TailReport | undefined>
}

export interface TailOptions {
  postgres: Postgres
  types: readonly ReplicatedType[]
  epoch(): Promise<number>
}

const bite = 50
/** Content and parts of one request stay below this, unless one object alone is larger. */
const mostBytes = 8_388_608
/** After so many refusals of one object only the trash has it. */
const mostTries = 3

type Sent = CandidatesRequest['objects'][number]

interface TailRow {
  type: string
  id: string
  shard: number
  kind: 'upsert' | 'delete' | 'forget' | null
}

export function createTail(options: TailOptions): Tail {
  const { postgres } = options
  const types = new Map(options.types.map((each) => [each.type, each]))
  const tries = new Map<string, number>()
  return {
    hand: async (heir) => {
      const rows = await nextRows(postgres)
      const [first] = rows
      if (!first) return undefined
      const objects = await readObjects(rows, types, postgres)
      await sendBytes(objects, types, heir)
      const { results } = await heir.candidates(first.shard, objects)
      const report: TailReport = {}
      for (const [index, object] of objects.entries()) {
        const state = stateOf(results[index], object, tries)
        if (state === undefined) continue
        const isOurs = await conclude(options, types.get(object.type), { object, state })
        report[state] = (report[state] ?? 0) + (isOurs ? 1 : 0)
      }
      return report
    },
  }
}

const keyOf = ({ type, id }: { type: string; id: string }): string => `${type} ${id}`

/** Undefined: it is tried again. */
function stateOf(
  result: CandidatesAnswer['results'][number] | undefined,
  object: Sent,
  tries: Map<string, number>,
): string | undefined {
  if (result && result.state !== 'failed') return result.state
  const tried = (tries.get(keyOf(object)) ?? 0) + 1
  tries.set(keyOf(object), tried)
  return tried >= mostTries ? 'failed' : undefined
}

async function nextRows(postgres: Queryable): Promise<TailRow[]> {
  const { rows } = await postgres.query<TailRow & Record<string, unknown>>(
    `SELECT type, id, shard, kind FROM sync_tail
     WHERE shard = (SELECT min(shard) FROM sync_tail) ORDER BY pos NULLS LAST, type, id LIMIT $1`,
    [bite],
  )
  return rows
}

/** As they are here now; the site is closed, so nobody changes them. */
async function readObjects(
  rows: TailRow[],
  types: Map<string, ReplicatedType>,
  postgres: Queryable,
): Promise<Sent[]> {
  const objects: Sent[] = []
  let bytes = 0
  for (const row of rows) {
    const object = await readObject(row, types.get(row.type), postgres)
    bytes += object.parts.reduce((sum, part) => sum + part.bytes.length, object.content?.length ?? 0)
    if (bytes > mostBytes && objects.length > 0) break
    objects.push(object)
  }
  return objects
}

async function readObject(
  row: TailRow,
  type: ReplicatedType | undefined,
  postgres: Queryable,
): Promise<Sent> {
  const { type: name, id } = row
  const image = (await type?.read([id], postgres))?.get(id)
  if (!type || !image) {
    return { type: name, id, kind: goneKind(row, type), hash: null, account: null, content: null, parts: [] }
  }
  const { content, account } = image
  const parts = (await type.parts?.(id, new Set(), postgres)) ?? []
  return {
    type: name,
    id,
    kind: 'upsert',
    hash: sha256(content),
    account,
    content,
    parts: parts.map(encodePart),
  }
}

const goneKind = ({ kind }: TailRow, type: ReplicatedType | undefined): 'delete' | 'forget' =>
  kind === 'delete' || kind === 'forget' ? kind : (type?.absentKind ?? 'delete')

async function sendBytes(objects: Sent[], types: Map<string, ReplicatedType>, heir: Heir): Promise<void> {
  for (const { type, id, kind } of objects) {
    if (kind !== 'upsert') continue
    const stored = await types.get(type)?.open?.(id)
    if (stored) await heir.upload(id, stored.size, stored.bytes)
  }
}

interface Conclusion {
  object: Sent
  state: string
}

/** With these the other site has what this one has. With any other its own version, or none, takes this one's place. */
const isSame = new Set(['adopted', 'current'])

/** @returns false when another runner has done it */
async function conclude(
  { postgres, epoch }: TailOptions,
  type: ReplicatedType | undefined,
  { object, state }: Conclusion,
): Promise<boolean> {
  const now = await epoch()
  return postgres.transaction(async (client: Client) => {
    await client.query(`SELECT set_config('baton.applying', 'on', true)`)
    const { rows } = await client.query<{ shard: number }>(
      'DELETE FROM sync_tail WHERE type = $1 AND id = $2 RETURNING shard',
      [object.type, object.id],
    )
    const [left] = rows
    if (!left) return false
    if (object.content === null) return true
    if (isSame.has(state)) await vouch(client, { object, shard: left.shard, epoch: now })
    else if (type) {
      await discard(type, { id: object.id, reason: 'replaced', content: object.content, epoch: now }, client)
      await type.remove(object.id, client)
    }
    return true
  })
}

interface Vouched {
  object: Sent
  shard: number
  epoch: number
}

/**
 * Says in the change log that the object is here as it should be: else what the new leader makes of it next would be taken for
 * a version that somebody wrote past the fence. Its position over there is not known, so it stands below all of them.
 */
async function vouch(client: Client, { object, shard, epoch }: Vouched): Promise<void> {
  await client.query(
    `INSERT INTO changes (type, id, shard, pos, epoch, kind, hash, account)
     SELECT $1, $2, $3::smallint, least(coalesce(min(pos), 0), 0) - 1, $4, 'upsert', $5, $6 FROM changes WHERE shard = $3::smallint
     ON CONFLICT (type, id) DO NOTHING`,
    [object.type, object.id, shard, epoch, object.hash, object.account],
  )
}

/**
 * Of a site that led before, followed, and leads again: what it had not handed over is its own once more, and what it only
 * vouched for gets positions, or a replica that begins now would not hear of it. Again changes nothing.
 */
export async function ownTail(postgres: Queryable): Promise<void> {
  await postgres.query(
    `WITH tail AS (DELETE FROM sync_tail RETURNING shard, type, id)
     INSERT INTO change_pending (shard, type, id) SELECT shard, type, id FROM tail`,
  )
  // Without a hash no content is as it was: it is numbered anew.
  await postgres.query(
    `WITH vouched AS (
       UPDATE changes SET hash = NULL WHERE shard = ANY (ARRAY(SELECT generate_series(0, 15))::smallint[]) AND pos < 0
       RETURNING shard, type, id)
     INSERT INTO change_pending (shard, type, id) SELECT shard, type, id FROM vouched`,
  )
}

/** Each transaction ends with it: whoever asks a site to open may hear that it has, and not ask again. */
export const owningTail = (postgres: Postgres): Postgres => ({
  ...postgres,
  transaction: (work) =>
    postgres.transaction(async (client) => {
      const done = await work(client)
      await ownTail(client)
      return done
    }),
})
