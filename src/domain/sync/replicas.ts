import type { Postgres } from '../../platform/postgres/postgres.ts'
import { SITE_IS_REPLICA } from '../../platform/replication/errors.ts'
import type { SiteState } from '../../platform/replication/site.ts'
import type { KeySeal } from './key-seal.ts'
import { type Link, openLink, type SendingParts } from './link.ts'
import { FUSE_EXPIRED, FUSE_NOT_FOUND, REPLICA_NOT_FOUND, REPLICA_UNUSABLE } from './protocol-errors.ts'
import type { RemoteSite } from './remote-site.ts'
import { type Repaired, repairAll } from './repair.ts'
import { getReplica, type Policies, type ReplicaRow, saveReplica } from './replica-rows.ts'
import { type ReplicaView, readSync, type SyncView, viewReplica } from './sync-view.ts'
import { type HelloAnswer, protocol } from './wire.ts'

export interface NewReplica {
  url: string
  key: string
  policy?: Policies
}

/** What operators may do about replicas. */
export interface Replicas {
  /**
   * Makes this site a leader when it is alone, and the other one its replica. Again changes url, key and policy.
   *
   * @throws REPLICA_UNUSABLE, SITE_IS_REPLICA, SYNC_SECRET_MISSING, and what `RemoteSite` does: nothing is kept then
   */
  put(name: string, replica: NewReplica): Promise<ReplicaView>
  /** It keeps what it has, and its role. @throws REPLICA_NOT_FOUND */
  remove(name: string): Promise<void>
  list(): Promise<SyncView>
  get(name: string): Promise<ReplicaView>
  pause(name: string): Promise<ReplicaView>
  resume(name: string): Promise<ReplicaView>
  /** Asks for a full verification. */
  verify(name: string): Promise<ReplicaView>
  /** Lets the deletes of a plan go. @throws FUSE_NOT_FOUND, FUSE_EXPIRED */
  approvePlan(name: string, plan: string, actor: string): Promise<ReplicaView>
  /** Sends what differs there at once; what was found goes into the trash over there. */
  approveMismatches(name: string, policy: 'replace' | 'keep'): Promise<ReplicaView & { mismatches: Repaired }>
}

export interface ReplicasOptions extends SendingParts {
  seal: KeySeal
  connect(replica: Pick<ReplicaRow, 'url' | 'keySealed'>, signal?: AbortSignal): RemoteSite
}

export function createReplicas(options: ReplicasOptions): Replicas {
  const { postgres } = options
  const get = async (name: string): Promise<ReplicaView> =>
    viewReplica(postgres, await getReplica(postgres, name))
  const change = async (name: string, assignments: string): Promise<ReplicaView> => {
    const { rowCount } = await postgres.query(
      `UPDATE replicas SET ${assignments}, updated_at = now() WHERE name = $1`,
      [name],
    )
    if (!rowCount) throw REPLICA_NOT_FOUND({ name })
    return get(name)
  }
  return {
    put: async (name, replica) => {
      await enlist(options, name, replica)
      return get(name)
    },
    remove: async (name) => {
      const { rowCount } = await postgres.query('DELETE FROM replicas WHERE name = $1', [name])
      if (!rowCount) throw REPLICA_NOT_FOUND({ name })
    },
    list: () => readSync(postgres, { site: options.site, name: options.name }),
    get,
    pause: (name) => change(name, 'paused = true'),
    resume: (name) => change(name, 'paused = false, error = NULL'),
    verify: (name) => change(name, 'verify_wanted_at = now()'),
    approvePlan: async (name, plan, actor) => {
      await getReplica(postgres, name)
      await approve(postgres, { name, plan, actor })
      return get(name)
    },
    approveMismatches: async (name, policy) => {
      const row = await getReplica(postgres, name)
      const mismatches = await mendMismatches(options, row, policy)
      return { ...(await get(name)), mismatches }
    },
  }
}

async function enlist(
  options: ReplicasOptions,
  name: string,
  { url, key, policy }: NewReplica,
): Promise<void> {
  const { postgres, site, seal } = options
  const row = { name, url, keySealed: seal.close(key), policy: policy ?? { '*': 'report' as const } }
  const before = await site.read(postgres)
  const remote = options.connect(row)
  if (before.role === 'replica') {
    await assertWayBack(remote, before, options.name)
    return saveReplica(postgres, row)
  }
  // Looked at before this site becomes a leader, which costs every write a little from then on.
  const seen = await remote.hello({ ...before, name: options.name }, true)
  assertUsable(remote.site, seen, before)
  const state = await site.lead()
  if (state.lineage === null)
    throw REPLICA_UNUSABLE({ site: remote.site, reason: 'this site does not lead.' })
  await remote.hello({ epoch: state.epoch, lineage: state.lineage, name: options.name }, false)
  await saveReplica(postgres, row)
}

/** A replica only notes where its leader is: after a fail-over that one follows it. @throws SITE_IS_REPLICA */
async function assertWayBack(remote: RemoteSite, state: SiteState, name: string): Promise<void> {
  const seen = await remote.hello({ ...state, name }, true)
  if (seen.lineage === state.lineage && seen.name !== name) return
  throw SITE_IS_REPLICA({ leader: state.leader ?? '', epoch: state.epoch, what: 'replicas of its own' })
}

function assertUsable(site: string, seen: HelloAnswer, state: SiteState): void {
  const refuse = (reason: string) => REPLICA_UNUSABLE({ site, reason })
  if (seen.protocol !== protocol) throw refuse(`it speaks protocol ${seen.protocol}, this site ${protocol}.`)
  if (seen.role === 'leader') throw refuse('it leads itself (or it is this very site).')
  if (seen.role === 'alone' && !seen.empty) {
    throw refuse('it has objects of its own, and a replica begins empty. Nothing was changed there.')
  }
  if (seen.role === 'replica' && seen.lineage !== state.lineage) {
    throw refuse(`it is a replica of ${seen.leader ?? 'another site'}, of another lineage.`)
  }
  if (seen.epoch > state.epoch && seen.role === 'replica') {
    throw refuse(`it has seen epoch ${seen.epoch}, this site is at ${state.epoch}.`)
  }
}

async function approve(
  postgres: Postgres,
  { name, plan, actor }: { name: string; plan: string; actor: string },
): Promise<void> {
  await postgres.transaction(async (client) => {
    const { rows } = await client.query<{ young: boolean }>(
      `SELECT at > now() - interval '24 hours' AS young FROM replica_fuses
       WHERE id = $1 AND replica = $2 AND closed_at IS NULL FOR UPDATE`,
      [plan, name],
    )
    const [fuse] = rows
    if (!fuse) throw FUSE_NOT_FOUND({ id: plan, name })
    if (!fuse.young) throw FUSE_EXPIRED({ id: plan })
    await client.query('UPDATE replica_fuses SET approved_at = now(), approved_by = $2 WHERE id = $1', [
      plan,
      actor,
    ])
    await client.query('UPDATE replica_quarantine SET due_at = now() WHERE fuse = $1', [plan])
  })
}

const mismatchesOfCall = 1_000

async function mendMismatches(
  options: ReplicasOptions,
  row: ReplicaRow,
  policy: 'replace' | 'keep',
): Promise<Repaired> {
  const { rows } = await options.postgres.query<{ type: string; id: string }>(
    `SELECT type, id FROM replica_quarantine WHERE replica = $1 AND kind = 'mismatch' ORDER BY since LIMIT $2`,
    [row.name, mismatchesOfCall],
  )
  if (rows.length === 0) return { mended: 0, current: 0, failed: 0 }
  const ended = new AbortController()
  const link: Link = await openLink(options, {
    replica: row.name,
    policies: row.policy,
    remote: options.connect(row, ended.signal),
    signal: ended.signal,
  })
  return repairAll(link, rows, { policies: { '*': policy } })
}
