import type { Queryable } from '../../platform/postgres/postgres.ts'
import type { Digests } from './digests.ts'
import { keyOf } from './judge.ts'
import type { Link } from './link.ts'
import { repairAll } from './repair.ts'
import { advanceInLane } from './replay-shard.ts'
import type { Verified } from './replica-rows.ts'
import type { Reread } from './reread.ts'
import { readRowsOf } from './window.ts'
import { shards } from './wire.ts'

export interface VerifyParts {
  digests: Digests
  reread: Reread
}

export interface VerifyOptions {
  /** Also reads every object anew, on both sides. */
  fromRows: boolean
  signal: AbortSignal
}

type Found = Omit<Verified, 'ms' | 'fromRows'>

/** Objects of a bite of the replica's reading, and the pause after it, ms: others work there too. */
const bite = 500
const pauseMs = 50
/** Somebody else may send to the replica too, and then its cursor is past the position that was compared. */
const tries = 5

/**
 * Compares everything, and sends again what differs, under the policy of the replica. Replay goes on meanwhile, but for
 * the shard that is being compared.
 */
export async function verify(link: Link, parts: VerifyParts, options: VerifyOptions): Promise<Verified> {
  const startedMs = link.clock.monotonicMs()
  const total: Found = { objects: 0, differing: 0, mended: 0, unknown: 0 }
  if (options.fromRows) {
    await rereadHere(link, parts, options.signal)
    add(total, await rereadThere(link, options.signal))
  }
  for (let shard = 0; shard < shards && !options.signal.aborted; shard++) {
    add(total, await compareShard(link, parts, shard))
  }
  options.signal.throwIfAborted()
  total.objects = await countObjects(link.postgres)
  return { ...total, fromRows: options.fromRows, ms: Math.round(link.clock.monotonicMs() - startedMs) }
}

function add(total: Found, more: Found): void {
  total.differing += more.differing
  total.mended += more.mended
  total.unknown += more.unknown
}

async function countObjects(database: Queryable): Promise<number> {
  const { rows } = await database.query<{ n: string }>(
    `SELECT count(*) AS n FROM changes WHERE kind = 'upsert'`,
  )
  return Number(rows[0]?.n ?? 0)
}

/** What was written here past the triggers is numbered now, and sent in its turn. */
async function rereadHere(link: Link, { reread }: VerifyParts, signal: AbortSignal): Promise<void> {
  const { differing } = await reread.run({ signal })
  if (differing.length === 0) return
  link.log.warn(
    { objects: differing.length },
    'objects were changed here without being captured; they are numbered now',
  )
  await link.postgres.query(
    `INSERT INTO change_pending (shard, type, id)
     SELECT change_shard(change_anchor(o.type, o.id)), o.type, o.id FROM unnest($1::text[], $2::text[]) AS o (type, id)`,
    [differing.map(({ type }) => type), differing.map(({ id }) => id)],
  )
  await link.sequencer.drain()
}

async function rereadThere(link: Link, signal: AbortSignal): Promise<Found> {
  const total: Found = { objects: 0, differing: 0, mended: 0, unknown: 0 }
  for (const type of link.types.keys()) {
    for (let after: string | null = null, isLast = false; !isLast && !signal.aborted; ) {
      const { objects, next, differing } = await link.remote.reread(link.speaker, {
        type,
        after,
        limit: bite,
      })
      total.objects += objects
      add(total, await mend(link, differing))
      after = next
      isLast = next === null
      await link.clock.sleep(pauseMs, signal)
    }
  }
  return total
}

async function mend(link: Link, differing: readonly { type: string; id: string }[]): Promise<Found> {
  if (differing.length === 0) return { objects: 0, differing: 0, mended: 0, unknown: 0 }
  const known = new Set((await readRowsOf(link.postgres, differing)).map(keyOf))
  const { mended } = await repairAll(link, differing)
  return {
    objects: 0,
    differing: differing.length,
    mended,
    unknown: differing.filter((object) => !known.has(keyOf(object))).length,
  }
}

function compareShard(link: Link, parts: VerifyParts, shard: number): Promise<Found> {
  return link.lane(shard, async () => {
    for (let attempt = 1; ; attempt++) {
      const { head, buckets } = await differingBuckets(link, parts.digests, shard)
      if (buckets) return mendBuckets(link, parts.digests, { shard, head, buckets })
      if (attempt === tries)
        throw new Error(`shard ${shard} of ${link.replica} could not be compared: it moves`)
    }
  })
}

/** Takes the digests at the head, has the replica come just there, and asks it to compare. */
async function differingBuckets(link: Link, digests: Digests, shard: number) {
  const own = await link.sequencer.atHead(shard, async (client, head) => ({
    head,
    digests: await digests.of(shard, client),
  }))
  for (let moved = true; moved; ) moved = await advanceInLane(link, shard, own.head)
  const { differing, cursor } = await link.remote.digest(link.speaker, {
    shard,
    pos: own.head,
    digests: own.digests,
  })
  if (differing === null) link.cursors[shard] = cursor
  return { head: own.head, buckets: differing }
}

async function mendBuckets(
  link: Link,
  digests: Digests,
  { shard, head, buckets }: { shard: number; head: number; buckets: number[] },
): Promise<Found> {
  const total: Found = { objects: 0, differing: 0, mended: 0, unknown: 0 }
  for (const bucket of buckets) {
    const theirs = await link.remote.bucket(link.speaker, { shard, bucket })
    const ours = await digests.entries(shard, bucket, link.postgres)
    const differing = differenceOf(ours, theirs.entries)
    // What has changed here since comes in its turn.
    await link.sequencer.drainShard(shard)
    const later = (await readRowsOf(link.postgres, differing)).filter(({ pos }) => pos > head).map(keyOf)
    add(
      total,
      await mend(
        link,
        differing.filter((object) => !later.includes(keyOf(object))),
      ),
    )
  }
  return total
}

interface Entry {
  type: string
  id: string
  hash: string
}

function differenceOf(ours: readonly Entry[], theirs: readonly Entry[]): { type: string; id: string }[] {
  const left = new Map(theirs.map((entry) => [keyOf(entry), entry]))
  const differing: Entry[] = []
  for (const entry of ours) {
    if (left.get(keyOf(entry))?.hash !== entry.hash) differing.push(entry)
    left.delete(keyOf(entry))
  }
  return [...differing, ...left.values()]
}
