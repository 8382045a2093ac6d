import type { Clock } from '../../core/clock.ts'
import type { Log } from '../../platform/log.ts'
import type { Metrics } from '../../platform/metrics.ts'
import type { Postgres } from '../../platform/postgres/postgres.ts'
import type { Site } from '../../platform/replication/site.ts'
import type { Types } from './judge.ts'
import { REPLICA_DIVERGED, REPLICA_UNUSABLE } from './protocol-errors.ts'
import type { RemoteSite, Speaker } from './remote-site.ts'
import { type Policies, readHeard, saveHeard } from './replica-rows.ts'
import type { Sequencer } from './sequencer.ts'
import type { HelloAnswer } from './wire.ts'

/** What the sending to replicas stands on. */
export interface SendingParts {
  postgres: Postgres
  site: Site
  types: Types
  sequencer: Sequencer
  /** This site's name. */
  name: string
  clock: Clock
  log: Log
  metrics: Metrics
}

/** This site's end of the line to a replica, as of its last hello. */
export interface Link extends SendingParts {
  readonly replica: string
  readonly policies: Policies
  readonly remote: RemoteSite
  readonly speaker: Speaker
  /** Where the replica stands, by shard: its own word. */
  readonly cursors: number[]
  /** How far its answers have been heard. */
  readonly heard: number[]
  /** Rows that a window may have; smaller after a window was refused as a whole. By shard. */
  readonly windows: number[]
  /** One after the other: of a shard, else two windows would start at the same cursor. */
  lane<T>(shard: number, work: () => Promise<T>): Promise<T>
  /** One after the other, whatever the shard: the fuse counts what was sent before. */
  deletes<T>(work: () => Promise<T>): Promise<T>
  readonly signal: AbortSignal
}

export interface LinkTo {
  replica: string
  policies: Policies
  remote: RemoteSite
  signal: AbortSignal
}

export const fullWindow = 1_000

/**
 * Says hello, and takes over where the replica stands.
 *
 * @throws REPLICA_DIVERGED, REPLICA_UNUSABLE, and what `RemoteSite` does
 */
export async function openLink(parts: SendingParts, to: LinkTo): Promise<Link> {
  const { role, epoch, lineage } = await parts.site.read(parts.postgres)
  if (lineage === null || role !== 'leader') {
    throw REPLICA_UNUSABLE({ site: to.remote.site, reason: 'this site does not lead.' })
  }
  const speaker: Speaker = { epoch, lineage, name: parts.name }
  const hello = await to.remote.hello(speaker, false)
  assertFollows(hello, { epoch, site: to.remote.site })
  const heads = await parts.sequencer.heads()
  for (const [shard, head] of heads.entries()) {
    const cursor = hello.cursors[shard] ?? 0
    if (cursor > head) throw REPLICA_DIVERGED({ shard, cursor, head })
  }
  const heard = await meet(parts, to.replica, hello.cursors, heads)
  const lanes = heads.map(() => createLane())
  return {
    ...parts,
    ...to,
    policies: to.policies,
    speaker,
    cursors: [...hello.cursors],
    heard,
    windows: heads.map(() => fullWindow),
    lane: (shard, work) => (lanes[shard] ?? createLane())(work),
    deletes: createLane(),
  }
}

function assertFollows({ role, epoch }: HelloAnswer, ours: { epoch: number; site: string }): void {
  if (role === 'replica' && epoch === ours.epoch) return
  throw REPLICA_UNUSABLE({
    site: ours.site,
    reason: `it is ${role} at epoch ${epoch}, this site is at ${ours.epoch}.`,
  })
}

/** A replica that nobody here has heard of yet, but that has something, is to be verified: what it lacks is not known. */
async function meet(
  { postgres }: SendingParts,
  replica: string,
  cursors: readonly number[],
  heads: readonly number[],
): Promise<number[]> {
  const known = await readHeard(postgres, replica)
  const heard: number[] = []
  let isStranger = false
  for (const [shard, cursor] of cursors.entries()) {
    const pos = known[shard]
    heard[shard] = Math.min(pos ?? cursor, cursor)
    isStranger ||= pos === undefined && cursor > 0
    if (heard[shard] === pos) continue
    await saveHeard(postgres, { replica, shard, pos: heard[shard], even: heads[shard] === heard[shard] })
  }
  if (isStranger)
    await postgres.query('UPDATE replicas SET verify_wanted_at = now() WHERE name = $1', [replica])
  return heard
}

function createLane(): <T>(work: () => Promise<T>) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve()
  return (work) => {
    const next = last.then(work, work)
    last = next.catch(() => undefined)
    return next
  }
}
