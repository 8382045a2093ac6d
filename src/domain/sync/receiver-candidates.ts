import { type Client, isAway, type Postgres } from '../../platform/postgres/postgres.ts'
import type { ReplicatedType } from '../../platform/replication/replicated.ts'
import { type Holding, readHoldings, type Types } from './judge.ts'
import { admitFormerLeader } from './receiver-admit.ts'
import { reasonOf } from './receiver-apply.ts'
import { decodePart, discard, keepInTrash } from './trash.ts'
import type { CandidatesAnswer, CandidatesRequest } from './wire.ts'

type Candidate = CandidatesRequest['objects'][number]
type Result = CandidatesAnswer['results'][number]

interface Judging {
  postgres: Postgres
  types: Types
  client: Client
  request: CandidatesRequest
}

/**
 * What a site that led before brings of the time after the fail-over. A candidate is taken only where nobody has changed
 * or deleted the object here since, and then it is a change of this site, captured as any other; else its content goes to
 * the trash, for people. One transaction a candidate. Again changes nothing: what was taken is `current`.
 *
 * @throws what `admitFormerLeader` does
 */
export async function takeCandidates(
  { types, postgres }: { types: Types; postgres: Postgres },
  request: CandidatesRequest,
): Promise<CandidatesAnswer> {
  await admitFormerLeader(request, postgres)
  const results: Result[] = []
  for (const candidate of request.objects) {
    results.push(await takeOne({ types, postgres, request }, candidate))
  }
  return { results }
}

async function takeOne(parts: Omit<Judging, 'client'>, candidate: Candidate): Promise<Result> {
  try {
    return await parts.postgres.transaction(async (client) => {
      await admitFormerLeader(parts.request, client)
      return take({ ...parts, client }, candidate)
    })
  } catch (error) {
    // The fence is closed, or the database is away: nobody can say of any object.
    if (isAway(error) || isRefusal(error)) throw error
    return { state: 'failed', reason: reasonOf(error) }
  }
}

const refusals = new Set([
  'SYNC_PROTOCOL',
  'LINEAGE_FOREIGN',
  'EPOCH_STALE',
  'SITE_IS_NO_REPLICA',
  'SITE_CLOSED',
  'BT001',
])
const isRefusal = (error: unknown): boolean =>
  refusals.has((error as { code?: string }).code ?? '') ||
  (error as { code?: string }).code === 'DATABASE_OVERLOADED'

async function take(judging: Judging, candidate: Candidate): Promise<Result> {
  const { types, client } = judging
  const type = types.get(candidate.type)
  if (!type) return { state: 'failed', reason: `this site knows no objects of the type ${candidate.type}` }
  const [holding] = await readHoldings(types, [candidate], client)
  if (!holding) return { state: 'failed' }
  const wanted = candidate.kind === 'upsert' ? candidate.hash : null
  if ((holding.image?.hash ?? null) === wanted)
    return { state: await knownState(judging, candidate, holding) }
  // Retention is at work here too.
  if (candidate.kind === 'forget') return { state: 'ignored' }
  if (await isChangedSince(judging, candidate, holding)) return refuse(judging, candidate, holding)
  await client.query('SAVEPOINT candidate')
  await write(judging, type, { candidate, holding })
  if (await hasChangedMeanwhile(judging, candidate)) {
    await client.query('ROLLBACK TO SAVEPOINT candidate')
    return refuse(judging, candidate, holding)
  }
  return { state: 'adopted' }
}

/** Bytes that came ahead of their object have made it already, uncaptured: from here on it is a change of this site. */
async function knownState(
  { client, request }: Judging,
  { type, id, kind, hash }: Candidate,
  { expected }: Holding,
): Promise<'current' | 'adopted'> {
  if (kind !== 'upsert' || expected === hash) return 'current'
  const { rowCount } = await client.query(
    `INSERT INTO change_pending (shard, type, id) SELECT $1::smallint, $2, $3
     WHERE NOT EXISTS (SELECT FROM change_pending WHERE shard = $1::smallint AND type = $2 AND id = $3)`,
    [request.shard, type, id],
  )
  return rowCount === 1 ? 'adopted' : 'current'
}

/** Here since the fail-over: at a position above it, or not numbered yet, or past its own row. */
async function isChangedSince(
  { client, request }: Judging,
  { type, id }: Candidate,
  { pos, image, expected }: Holding,
): Promise<boolean> {
  if ((pos ?? 0) > (request.lostAfter[request.shard] ?? 0)) return true
  if ((image?.hash ?? null) !== expected) return true
  const { rows } = await client.query(
    'SELECT FROM change_pending WHERE shard = $1 AND type = $2 AND id = $3 LIMIT 1',
    [request.shard, type, id],
  )
  return rows.length > 0
}

/**
 * Somebody committed a change of it between our look and our write, which has its rows locked from now on. Looked at from
 * outside of the transaction, where ours is not seen.
 */
async function hasChangedMeanwhile({ postgres }: Judging, { type, id }: Candidate): Promise<boolean> {
  const { rows } = await postgres.query('SELECT FROM change_pending WHERE type = $1 AND id = $2 LIMIT 1', [
    type,
    id,
  ])
  return rows.length > 0
}

async function write(
  { client, request }: Judging,
  type: ReplicatedType,
  { candidate, holding }: { candidate: Candidate; holding: Holding },
): Promise<void> {
  const { id, kind, content, parts } = candidate
  if (kind === 'delete') {
    const old = holding.image?.content
    if (old !== undefined)
      await discard(type, { id, reason: 'deleted', content: old, epoch: request.epoch }, client)
    return type.remove(id, client)
  }
  if (content === null) throw new Error('its content was not sent')
  await type.apply({ id, content, parts: parts.map(decodePart) }, client)
}

async function refuse(
  { client, request }: Judging,
  { type, id, content, parts }: Candidate,
  { image }: Holding,
): Promise<Result> {
  if (content !== null) {
    await keepInTrash(
      { type, id, reason: 'conflict', content, epoch: request.epoch, parts: parts.map(decodePart) },
      client,
    )
  }
  return { state: image ? 'conflict' : 'deleted' }
}
