import { messageOf } from '../../../core/errors.ts'
import type { Queryable } from '../../../platform/postgres/postgres.ts'
import type { SiteState } from '../../../platform/replication/site.ts'
import { protocol } from '../wire.ts'
import type { OtherSite } from './other-site.ts'

/** Longest age of what a replica does not have yet, seconds. */
const mostLagSeconds = 60

export interface PreflightOptions {
  postgres: Queryable
  state: SiteState
  target: string
  other: OtherSite | undefined
  /** This site's. */
  name: string
  /** Of this release. */
  version: string
  isSeeded(): Promise<boolean>
}

/** Everything that speaks against a fail-over now, for people; empty when nothing does. Changes nothing. */
export async function preflight(options: PreflightOptions): Promise<string[]> {
  const { postgres, state, target, other, isSeeded } = options
  if (state.role !== 'leader') return [`this site does not lead (it is ${state.role})`]
  if (!other) return [`there is no replica ${target} here; see \`baton sync status\``]
  const [seeded, ours, theirs] = await Promise.all([
    isSeeded(),
    findTroubles(postgres, target),
    askOther(other, options),
  ])
  const seeding = seeded ? [] : ['what was here before the first replica is not all handed over yet']
  return [...(state.intake === 'closed' ? ['this site is closed'] : []), ...seeding, ...ours, ...theirs]
}

async function askOther(
  other: OtherSite,
  { state, target, version, name }: PreflightOptions,
): Promise<string[]> {
  try {
    const hello = await other.hello()
    const troubles: string[] = []
    if (hello.protocol !== protocol)
      troubles.push(`${target} speaks protocol ${hello.protocol}, not ${protocol}`)
    if (hello.version !== version)
      troubles.push(`${target} runs release ${hello.version}, this site ${version}: bring both to the same`)
    if (hello.name === name)
      troubles.push(`${target} has the name of this site, ${name}: set SITE there or here`)
    if (hello.role !== 'replica') troubles.push(`${target} is no replica (it is ${hello.role})`)
    if (hello.lineage !== state.lineage) troubles.push(`${target} is of another lineage`)
    if (hello.epoch > state.epoch)
      troubles.push(`${target} knows epoch ${hello.epoch}, and this one is ${state.epoch}`)
    return troubles
  } catch (error) {
    return [`${target} does not answer: ${messageOf(error)}`]
  }
}

interface Troubles extends Record<string, unknown> {
  paused: boolean
  error: { message?: string } | null
  failed: number
  reason: string | null
  mismatch: number
  held: number
  fuses: number
  behind: number
  pending: boolean
}

async function findTroubles(postgres: Queryable, target: string): Promise<string[]> {
  const { rows } = await postgres.query<Troubles>(
    `SELECT r.paused, r.error,
       (SELECT count(*)::int FROM replica_quarantine q WHERE q.replica = r.name AND q.kind = 'failed') AS failed,
       (SELECT count(*)::int FROM replica_quarantine q WHERE q.replica = r.name AND q.kind = 'mismatch') AS mismatch,
       (SELECT q.type || ' ' || q.id || ': ' || q.reason FROM replica_quarantine q
          WHERE q.replica = r.name AND q.kind = 'failed' ORDER BY q.since LIMIT 1) AS reason,
       (SELECT count(*)::int FROM replica_quarantine q WHERE q.replica = r.name AND q.kind = 'held') AS held,
       (SELECT count(*)::int FROM replica_fuses f WHERE f.replica = r.name AND f.closed_at IS NULL) AS fuses,
       (SELECT count(*)::int FROM change_heads h
          LEFT JOIN replica_cursors c ON c.shard = h.shard AND c.replica = r.name
          WHERE h.pos > coalesce(c.pos, 0)
            AND coalesce(c.even_at, r.created_at) < now() - make_interval(secs => $2)) AS behind,
       EXISTS (SELECT FROM change_pending WHERE at < now() - make_interval(secs => $2)) AS pending
     FROM replicas r WHERE r.name = $1`,
    [target, mostLagSeconds],
  )
  const [found] = rows
  if (!found) return [`there is no replica ${target} here`]
  const say = (is: boolean, text: string): string[] => (is ? [text] : [])
  return [
    ...say(found.paused, `replication to ${target} is paused`),
    ...say(
      found.error !== null,
      `replication to ${target} does not go on: ${found.error?.message ?? 'it has an error'}`,
    ),
    ...say(
      found.failed > 0,
      `${found.failed} objects could not be written at ${target}, such as ${found.reason}`,
    ),
    ...say(found.mismatch > 0, `${found.mismatch} objects of ${target} were changed there past the fence`),
    ...say(found.held > 0, `${found.held} deletes are held back`),
    ...say(found.fuses > 0, `${found.fuses} plans of deletes wait for approval (\`baton sync approve\`)`),
    ...say(found.behind > 0 || found.pending, `${target} is more than ${mostLagSeconds} s behind`),
  ]
}
