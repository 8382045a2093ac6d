import { sha256 } from '../../core/digest.ts'
import { BatonError, codeOf, messageOf } from '../../core/errors.ts'
import { type Client, isAway, type Postgres } from '../../platform/postgres/postgres.ts'
import { type Holding, judge, keyOf, readHoldings, type Types } from './judge.ts'
import { admitLeader, lockCursor } from './receiver-admit.ts'
import { stagedOf, takeStaged } from './staged-parts.ts'
import { decodePart, discard, type TrashReason } from './trash.ts'
import type { AppliedObject, ApplyAnswer, ApplyRequest } from './wire.ts'

type Result = ApplyAnswer['results'][number]

/** One object of a request, what is here of it, and what came of it. */
interface Work {
  object: AppliedObject
  holding: Holding
  result: Result | undefined
}

interface Applying {
  types: Types
  client: Client
  epoch: number
  /** Objects of which parts came ahead. */
  staged: ReadonlyMap<string, unknown>
}

/**
 * What the leader sent, in one transaction: the cursor, the objects, their rows in `changes` at the leader's positions.
 * _The answer is lost_: the same request again finds the cursor moved. _Killed_: nothing of it has happened. An object
 * that cannot be written is rolled back on its own and told as `failed`.
 *
 * @throws what `admitLeader` does; SYNC_CURSOR with the cursor
 */
export function applyObjects(
  { types, postgres }: { types: Types; postgres: Postgres },
  request: ApplyRequest,
): Promise<ApplyAnswer> {
  const { shard, window, objects } = request
  return postgres.transaction(async (client) => {
    await client.query("SELECT set_config('baton.applying', 'on', true)")
    await admitLeader(request, client, true)
    const cursor = await lockCursor(client, shard, window?.from)
    const holdings = await readHoldings(types, objects, client)
    const works = objects.map((object, index): Work => {
      const holding = holdings[index] as Holding
      return { object, holding, result: early(object, holding, window ? undefined : cursor) }
    })
    const staged = await stagedOf(client, objects)
    const applying: Applying = { types, client, epoch: request.epoch, staged }
    await writeAll(
      applying,
      works.filter(({ result }) => result === undefined),
    )
    await recordRows(applying, shard, works)
    const end = window?.to ?? cursor
    if (end > cursor) {
      await client.query('UPDATE sync_cursors SET pos = $2, at = now() WHERE shard = $1', [shard, end])
    }
    return { cursor: end, results: works.map(({ result }) => result ?? { state: 'failed' }) }
  })
}

/** What needs no write. `cursor`: of a request that is no window, but sends single objects again. */
function early(object: AppliedObject, holding: Holding, cursor: number | undefined): Result | undefined {
  const isRepeat = cursor !== undefined
  // Its turn is yet to come, or has come meanwhile: an older content must never follow a newer one.
  if (isRepeat && (object.pos > cursor || (holding.pos ?? 0) > object.pos)) return { state: 'stale' }
  const state = judge(object, holding)
  if (state === 'current') return { state }
  return state === 'mismatch' && object.policy === 'report' ? { state } : undefined
}

/** All at once first; when one throws, each in a savepoint of its own, and those that failed once more at the end. */
async function writeAll(applying: Applying, works: Work[]): Promise<void> {
  if (works.length === 0) return
  const { client, types } = applying
  // What others refer to comes first: bodies, devices, then what belongs to them.
  const order = [...types.keys()]
  const sorted = works.toSorted((a, b) => order.indexOf(a.object.type) - order.indexOf(b.object.type))
  const isWhole = await inSavepoint(client, async () => {
    for (const work of sorted) await write(applying, work)
  })
  if (isWhole === undefined) {
    for (const work of sorted) work.result = { state: 'applied' }
    return
  }
  await writeEach(applying, sorted)
  await writeEach(
    applying,
    sorted.filter(({ result }) => result?.state === 'failed'),
  )
}

async function writeEach(applying: Applying, works: Work[]): Promise<void> {
  for (const work of works) {
    const failure = await inSavepoint(applying.client, () => write(applying, work))
    work.result =
      failure === undefined ? { state: 'applied' } : { state: 'failed', reason: reasonOf(failure.error) }
  }
}

/** @returns what was thrown, with everything since undone; undefined when nothing was */
async function inSavepoint(
  client: Client,
  work: () => Promise<void>,
): Promise<{ error: unknown } | undefined> {
  await client.query('SAVEPOINT object')
  try {
    await work()
    await client.query('RELEASE SAVEPOINT object')
    return undefined
  } catch (error) {
    // Then it is the transaction that has failed, and not the object.
    if (isAway(error)) throw error
    await client.query('ROLLBACK TO SAVEPOINT object')
    await client.query('RELEASE SAVEPOINT object')
    return { error }
  }
}

async function write({ types, client, epoch, staged }: Applying, { object, holding }: Work): Promise<void> {
  const { id, kind, content } = object
  const type = types.get(object.type)
  if (!type) throw new Error(`this site knows no objects of the type ${object.type}`)
  const reason = trashReasonOf(object, holding)
  if (reason && holding.image) {
    await discard(type, { id, reason, content: holding.image.content, epoch }, client)
  }
  if (kind !== 'upsert') return type.remove(id, client)
  if (content === null) throw new Error('its content was not sent, since it was here when that was asked')
  const ahead = staged.has(keyOf(object)) ? await takeStaged(client, object) : []
  await type.apply({ id, content, parts: [...ahead, ...object.parts.map(decodePart)] }, client)
}

function trashReasonOf(object: AppliedObject, holding: Holding): TrashReason | undefined {
  if (judge(object, holding) === 'mismatch') return object.policy === 'keep' ? 'conflict' : 'replaced'
  if (object.kind === 'delete') return 'deleted'
  return holding.tail ? 'replaced' : undefined
}

/** Rows of what is now as the leader has it. Others keep theirs: what is here is still what they say, or a mismatch. */
async function recordRows({ client, epoch }: Applying, shard: number, works: Work[]): Promise<void> {
  const rows = works
    .filter(({ result }) => result?.state === 'applied' || result?.state === 'current')
    .map(({ object, holding, result }) => ({
      ...object,
      // Of what was written, which may be newer than what was numbered.
      hash: object.kind === 'upsert' ? writtenHash(object, holding, result) : null,
    }))
  if (rows.length === 0) return
  const values = [rows.map(({ type }) => type), rows.map(({ id }) => id)]
  await client.query({
    name: 'sync-record',
    text: `INSERT INTO changes (type, id, shard, pos, epoch, kind, hash, account)
       SELECT r.type, r.id, $3, r.pos, $4, r.kind, r.hash, r.account
       FROM unnest($1::text[], $2::text[], $5::bigint[], $6::text[], $7::text[], $8::text[])
         AS r (type, id, pos, kind, hash, account)
       ON CONFLICT (type, id) DO UPDATE SET shard = excluded.shard, pos = excluded.pos, epoch = excluded.epoch,
         kind = excluded.kind, hash = excluded.hash, account = excluded.account, at = now()`,
    values: [
      ...values,
      shard,
      epoch,
      rows.map(({ pos }) => pos),
      rows.map(({ kind }) => kind),
      rows.map(({ hash }) => hash),
      rows.map(({ account }) => account),
    ],
  })
  await client.query({
    name: 'sync-tail-over',
    text: `DELETE FROM sync_tail t USING unnest($1::text[], $2::text[]) AS r (type, id)
       WHERE t.type = r.type COLLATE "C" AND t.id = r.id COLLATE "C"`,
    values,
  })
}

const writtenHash = (object: AppliedObject, holding: Holding, result: Result | undefined): string | null =>
  result?.state === 'current' || object.content === null
    ? (holding.image?.hash ?? object.hash)
    : sha256(object.content)

/** For people, without what stands in the object: messages of Postgres often show values. */
export function reasonOf(error: unknown): string {
  const { constraint, table } = (error ?? {}) as { constraint?: string; table?: string }
  const code = codeOf(error)
  const isOurs = error instanceof BatonError || code === undefined || code === 'P0001'
  const named = [constraint && `constraint ${constraint}`, table && `table ${table}`]
    .filter(Boolean)
    .join(', ')
  const text = isOurs ? messageOf(error) : `Postgres refuses it with ${code}${named ? ` (${named})` : ''}`
  return text.slice(0, 300)
}
