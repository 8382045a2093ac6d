import type { Postgres } from '../../platform/postgres/postgres.ts'
import type { SiteState } from '../../platform/replication/site.ts'
import { enlist, leaveLead } from './enlisting.ts'
import type { KeySeal } from './key-seal.ts'
import { type Link, openLink, type SendingParts } from './link.ts'
import { FUSE_EXPIRED, FUSE_NOT_FOUND, REPLICA_NOT_FOUND } from './protocol-errors.ts'
import type { RemoteSite } from './remote-site.ts'
import { type Repaired, repairAll } from './repair.ts'
import { getReplica, type Policies, type ReplicaRow } from './replica-rows.ts'
import { type ReplicaView, readSync, type SyncView, viewReplica } from './sync-view.ts'

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
   * @throws REPLICA_UNUSABLE, SITE_IS_REPLICA, SITE_BUSY, SYNC_SECRET_MISSING, and what `RemoteSite` does: nothing is kept
   * then
   */
  put(name: string, replica: NewReplica): Promise<ReplicaView>
  /** It keeps what it has, and its role. @throws REPLICA_NOT_FOUND */
  remove(name: string): Promise<void>
  /** This site is alone again, when it has no replica. @throws what `Site.leave` does */
  leave(): Promise<SiteState>
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
  /** Where `list` and `get` look, which is done on sites without replicas too. Default: `postgres`. */
  looks?: Postgres
}

export function createReplicas(options: ReplicasOptions): Replicas {
  const { postgres, looks = postgres } = options
  const get = async (name: string): Promise<ReplicaView> => viewReplica(looks, await getReplica(looks, name))
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
    leave: () => leaveLead(options),
    list: () => readSync(looks, { site: options.site, name: options.name, types: [...options.types.keys()] }),
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
