import { randomInt } from 'node:crypto'
import type { Queryable } from '../../platform/postgres/postgres.ts'
import { SITE_BUSY, SITE_IS_REPLICA } from '../../platform/replication/errors.ts'
import type { SiteState } from '../../platform/replication/site.ts'
import { refusalOf } from '../../platform/replication/site-client.ts'
import { REPLICA_UNUSABLE } from './protocol-errors.ts'
import type { RemoteSite } from './remote-site.ts'
import { type ReplicaRow, saveReplica } from './replica-rows.ts'
import type { NewReplica, ReplicasOptions } from './replicas.ts'
import { type HelloAnswer, protocol } from './wire.ts'

/** The class of our advisory locks: 0 is held by who registers a replica, the others are challenges. */
const lockClass = 1_937_337_955
const waitMs = 20_000
const pauseMs = 250

/**
 * Makes another site a replica of this one: one at a time, so that who is refused gives up a lead that nobody else uses.
 *
 * @throws as `Replicas.put`
 */
export async function enlist(
  options: ReplicasOptions,
  name: string,
  { url, key, policy }: NewReplica,
): Promise<void> {
  const row = { name, url, keySealed: options.seal.close(key), policy: policy ?? { '*': 'report' as const } }
  await oneAtATime(options, async (challenge) => {
    const remote = options.connect(row)
    const state = await options.site.read(options.postgres)
    const seen = await remote.hello({ ...state, name: options.name }, true, challenge)
    if (seen.self) throw refusal(remote, "that address is this site's own. Give the URL of the other site.")
    if (state.role === 'replica') {
      assertWayBack(seen, state, options.name)
      return saveReplica(options.postgres, row)
    }
    // So that what only this site has can be handed over there.
    if (isSupersededBy(seen, state)) return saveReplica(options.postgres, row)
    // Looked at before this site becomes a leader, which costs every write a little from then on.
    assertUsable(remote, seen, state)
    await join(options, { row, remote, wasAlone: state.role === 'alone' })
  })
}

/** Not while a replica is being registered: that one would follow a lineage that nobody leads. @throws as `Replicas.leave` */
export const leaveLead = (options: ReplicasOptions): Promise<SiteState> =>
  oneAtATime(options, () => options.site.leave())

/**
 * Holds a lock of a random number meanwhile: a site that sees it in its own database is this one, by whatever URL.
 *
 * @throws SITE_BUSY
 */
async function oneAtATime<T>(
  { postgres, clock }: ReplicasOptions,
  work: (challenge: number) => Promise<T>,
): Promise<T> {
  const untilMs = clock.monotonicMs() + waitMs
  for (;;) {
    const challenge = randomInt(1, 2_147_483_647)
    const done = await postgres.transaction(async (client) => {
      const { rows } = await client.query<{ free: boolean }>(
        'SELECT pg_try_advisory_xact_lock($1, 0) AND pg_try_advisory_xact_lock($1, $2) AS free',
        [lockClass, challenge],
      )
      return rows[0]?.free ? { result: await work(challenge) } : undefined
    })
    if (done) return done.result
    if (clock.monotonicMs() >= untilMs)
      throw SITE_BUSY(
        { what: 'given a replica or left', ms: waitMs, who: 'a replica is being registered' },
        { retryAfterMs: 5_000 },
      )
    await clock.sleep(pauseMs)
  }
}

export async function isChallenged(database: Queryable, challenge: number): Promise<boolean> {
  const { rows } = await database.query(
    `SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2
       AND classid = $1::bigint::oid AND objid = $2::bigint::oid
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
    [lockClass, challenge],
  )
  return rows.length > 0
}

interface Joining {
  row: Pick<ReplicaRow, 'name' | 'url' | 'keySealed' | 'policy'>
  remote: RemoteSite
  wasAlone: boolean
}

async function join(
  { postgres, site, name }: ReplicasOptions,
  { row, remote, wasAlone }: Joining,
): Promise<void> {
  const { epoch, lineage } = await site.lead()
  if (lineage === null) throw refusal(remote, 'this site does not lead.')
  try {
    await remote.hello({ epoch, lineage, name }, false)
  } catch (error) {
    // Only when it said no. One that did not answer may follow by now: then the same again completes it.
    if (wasAlone && refusalOf(error)) await site.leave().catch(() => undefined)
    throw error
  }
  await postgres.transaction(async (client) => {
    const { rowCount } = await client.query(
      `SELECT FROM site WHERE role = 'leader' AND lineage = $1 FOR SHARE`,
      [lineage],
    )
    if (!rowCount) throw refusal(remote, 'this site gave up its lead meanwhile.')
    await saveReplica(client, row)
  })
}

/** A replica only notes where its leader is: after a fail-over that one follows it. @throws SITE_IS_REPLICA */
function assertWayBack(seen: HelloAnswer, state: SiteState, name: string): void {
  if (seen.lineage === state.lineage && seen.name !== name) return
  throw SITE_IS_REPLICA({ leader: state.leader ?? '', epoch: state.epoch, what: 'replicas of its own' })
}

const isSupersededBy = (seen: HelloAnswer, { lineage, epoch, intake }: SiteState): boolean =>
  seen.role === 'leader' && seen.lineage === lineage && seen.epoch > epoch && intake === 'closed'

const refusal = ({ site }: RemoteSite, reason: string) => REPLICA_UNUSABLE({ site, reason })

function assertUsable(remote: RemoteSite, seen: HelloAnswer, state: SiteState): void {
  const refuse = (reason: string) => refusal(remote, reason)
  if (seen.protocol !== protocol) throw refuse(`it speaks protocol ${seen.protocol}, this site ${protocol}.`)
  if (seen.role === 'leader') {
    const isKin = seen.lineage === state.lineage
    throw refuse(
      isKin
        ? `it leads too, at epoch ${seen.epoch}, and this site at ${state.epoch}: one of the two was superseded. Ask both for \`baton fail-over status\`.`
        : 'it leads itself.',
    )
  }
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
