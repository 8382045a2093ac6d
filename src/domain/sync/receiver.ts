import type { Readable } from 'node:stream'
import { messageOf } from '../../core/errors.ts'
import type { Log } from '../../platform/log.ts'
import type { Postgres, Queryable } from '../../platform/postgres/postgres.ts'
import { EPOCH_STALE, SITE_LEADS } from '../../platform/replication/errors.ts'
import type { ReplicatedType } from '../../platform/replication/replicated.ts'
import type { Site, SiteState } from '../../platform/replication/site.ts'
import type { Digests } from './digests.ts'
import { isChallenged } from './enlisting.ts'
import { judge, readHoldings, typesByName } from './judge.ts'
import { SYNC_TYPE_UNKNOWN } from './protocol-errors.ts'
import { admitEither, admitLeader, assertProtocol, readCursors, staleEpoch } from './receiver-admit.ts'
import { applyObjects } from './receiver-apply.ts'
import { takeCandidates } from './receiver-candidates.ts'
import { rereadBite } from './reread-bite.ts'
import { stagedOf, stageParts } from './staged-parts.ts'
import { decodePart } from './trash.ts'
import {
  type ApplyAnswer,
  ApplyRequest,
  type BucketAnswer,
  BucketRequest,
  type CandidatesAnswer,
  CandidatesRequest,
  createReader,
  type DigestAnswer,
  DigestRequest,
  type HelloAnswer,
  HelloRequest,
  type PartsAnswer,
  PartsRequest,
  type PlanAnswer,
  PlanRequest,
  protocol,
  type RereadAnswer,
  RereadRequest,
  type Sender,
} from './wire.ts'

/**
 * What a site does that another one speaks to. Each call takes what came over the wire, unread, and throws INPUT_INVALID
 * with every fault of it; SYNC_PROTOCOL, SITE_IS_NO_REPLICA, LINEAGE_FOREIGN, EPOCH_STALE or SITE_LEADS when the sender
 * may not.
 */
export interface Receiver {
  /** Follows the leader, when this site is alone and empty. @throws SITE_NOT_EMPTY */
  hello(body: unknown): Promise<HelloAnswer>
  plan(body: unknown): Promise<PlanAnswer>
  /** @throws SYNC_CURSOR */
  apply(body: unknown): Promise<ApplyAnswer>
  /** Parts of an object too large for a request, ahead of it. */
  parts(body: unknown): Promise<PartsAnswer>
  digest(body: unknown): Promise<DigestAnswer>
  bucket(body: unknown): Promise<BucketAnswer>
  /** A bite of a verification from rows. */
  reread(body: unknown): Promise<RereadAnswer>
  candidates(body: unknown): Promise<CandidatesAnswer>
  /** @throws SYNC_TYPE_UNKNOWN and what the store of bodies does */
  receive(sender: Sender, upload: { id: string; size: number; bytes: Readable }): Promise<void>
}

export interface ReceiverOptions {
  postgres: Postgres
  site: Site
  types: readonly ReplicatedType[]
  digests: Digests
  /** This site's name and release, for the other one. */
  name: string
  version: string
  log: Log
  /** Told when a site says hello that leads at a higher epoch than this one, which leads too. */
  onSuperseded?(): void
}

/** It is said again, and tried again. */
const closeWithinMs = 5_000

export function createReceiver(options: ReceiverOptions): Receiver {
  const { postgres, digests } = options
  const types = typesByName(options.types)
  const read = {
    hello: createReader(HelloRequest),
    plan: createReader(PlanRequest),
    apply: createReader(ApplyRequest),
    parts: createReader(PartsRequest),
    digest: createReader(DigestRequest),
    bucket: createReader(BucketRequest),
    reread: createReader(RereadRequest),
    candidates: createReader(CandidatesRequest),
  }
  return {
    hello: (body) => hello(options, read.hello(body)),
    plan: async (body) => {
      const request = read.plan(body)
      await admitLeader(request, postgres, false)
      return plan({ types, database: postgres }, request)
    },
    apply: (body) => applyObjects({ types, postgres }, read.apply(body)),
    parts: async (body) => {
      const request = read.parts(body)
      await admitLeader(request, postgres, false)
      await stageParts(postgres, request, request.parts.map(decodePart))
      return { kept: request.parts.length }
    },
    digest: async (body) => {
      const request = read.digest(body)
      return atOneInstant(postgres, request, async (client) => {
        const cursor = (await readCursors(client))[request.shard] ?? 0
        if (cursor !== request.pos) return { cursor, differing: null }
        const own = await digests.of(request.shard, client)
        const differing = own.flatMap((digest, bucket) =>
          digest === request.digests[bucket] ? [] : [bucket],
        )
        return { cursor, differing }
      })
    },
    bucket: async (body) => {
      const request = read.bucket(body)
      return atOneInstant(postgres, request, async (client) => ({
        cursor: (await readCursors(client))[request.shard] ?? 0,
        entries: await digests.entries(request.shard, request.bucket, client),
      }))
    },
    reread: async (body) => {
      const request = read.reread(body)
      return atOneInstant(postgres, request, (client) => rereadBite(types, request, client))
    },
    candidates: (body) => takeCandidates({ postgres, types }, read.candidates(body)),
    receive: async (sender, { id, size, bytes }) => {
      await admitEither(sender, postgres)
      const type = options.types.find(({ receive }) => receive !== undefined)
      if (!type?.receive) throw SYNC_TYPE_UNKNOWN({ type: 'body' })
      await type.receive(id, size, bytes)
    },
  }
}

/** Cursor and rows as of one instant: what is applied meanwhile is in both or in neither. */
const atOneInstant = <T>(
  postgres: Postgres,
  sender: Sender,
  work: (client: Queryable) => Promise<T>,
): Promise<T> =>
  postgres.transaction(async (client) => {
    await client.query('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY')
    await admitLeader(sender, client, false)
    return work(client)
  })

async function hello(options: ReceiverOptions, request: HelloRequest): Promise<HelloAnswer> {
  const { site, postgres, log } = options
  assertProtocol(request.protocol)
  const { lineage, epoch, leader, look } = request
  const before = await site.read(postgres)
  if (look || lineage === null) {
    const self = request.challenge !== undefined && (await isChallenged(postgres, request.challenge))
    return { ...(await tell(options, before)), self }
  }
  try {
    const state = await site.follow({ lineage, epoch, leader })
    if (state.role !== before.role) log.info({ leader, epoch }, 'this site is a replica now')
    return await tell(options, state)
  } catch (error) {
    if (SITE_LEADS.is(error)) await yieldTo(options, { leader, epoch })
    // The other one has to learn how far behind it is.
    if (EPOCH_STALE.is(error)) throw staleEpoch(epoch, await site.read(postgres))
    log.warn({ leader, epoch, reason: messageOf(error) }, 'a site that would lead this one was refused')
    throw error
  }
}

/** The other one shares our history, and leads at a higher epoch. It may stand in no list here that anybody could ask. */
async function yieldTo(
  { site, log, onSuperseded }: ReceiverOptions,
  { leader, epoch }: { leader: string; epoch: number },
): Promise<void> {
  try {
    const state = await site.read()
    if (state.intake !== 'closed' && state.epoch < epoch) {
      log.error({ leader, epoch }, 'another site leads at a higher epoch: this one closes')
      await site.close(closeWithinMs, state.epoch)
    }
  } catch (error) {
    log.warn({ leader, epoch, reason: messageOf(error) }, 'this site could not be closed yet')
  }
  onSuperseded?.()
}

async function tell(
  { postgres, types, name, version }: ReceiverOptions,
  { role, intake, epoch, lineage, leader }: SiteState,
): Promise<HelloAnswer> {
  const [cursors, empty, lostAfter] = await Promise.all([
    readCursors(postgres),
    role === 'alone' ? isEmpty(types, postgres) : false,
    role === 'leader' ? readLostAfter(postgres, epoch) : null,
  ])
  return { protocol, name, version, role, intake, epoch, lineage, leader, cursors, empty, lostAfter }
}

async function isEmpty(types: readonly ReplicatedType[], database: Queryable): Promise<boolean> {
  for (const type of types) {
    if ((await type.scan(undefined, 1, database)).length > 0) return false
  }
  return true
}

/** Of a site that was made the leader while the one before was away: what it had at that instant. */
async function readLostAfter(database: Queryable, epoch: number): Promise<number[] | null> {
  const { rows } = await database.query<{ heads: unknown }>(
    `SELECT heads FROM fail_overs WHERE mode = 'hard' AND epoch = $1 AND heads IS NOT NULL
     ORDER BY created_at DESC LIMIT 1`,
    [epoch],
  )
  const heads = rows[0]?.heads
  return Array.isArray(heads) ? heads.map(Number) : null
}

interface Planning {
  types: ReturnType<typeof typesByName>
  database: Queryable
}

async function plan({ types, database }: Planning, { objects }: PlanRequest): Promise<PlanAnswer> {
  const holdings = await readHoldings(types, objects, database)
  const states = objects.map((object, index) => {
    const holding = holdings[index]
    return holding ? judge(object, holding) : 'send'
  })
  const parts = new Map<string, string[]>()
  const here = new Set<string>()
  const staged = await stagedOf(database, objects)
  for (const [name, group] of Map.groupBy(objects, ({ type }) => type)) {
    const ids = group.map(({ id }) => id)
    const type = types.get(name)
    for (const [id, held] of (await type?.holdings?.(ids, database)) ?? []) parts.set(`${name} ${id}`, held)
    for (const id of (await type?.has?.(ids)) ?? []) here.add(`${name} ${id}`)
  }
  return {
    objects: objects.map(({ type, id }, index) => ({
      state: states[index] ?? 'send',
      parts: [...(parts.get(`${type} ${id}`) ?? []), ...(staged.get(`${type} ${id}`) ?? [])],
      has: here.has(`${type} ${id}`),
    })),
  }
}
