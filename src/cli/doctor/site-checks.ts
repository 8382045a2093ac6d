import type { Postgres } from '../../platform/postgres/postgres.ts'
import { type Finding, fault, ok, warning } from './check.ts'

interface Row extends Record<string, unknown> {
  role: 'alone' | 'leader' | 'replica'
  intake: 'open' | 'draining' | 'closed'
  epoch: string
  leader: string | null
  running: string | null
  seconds_behind: number | null
  seconds_silent: number | null
  troubles: number
}

const sql = `
  SELECT s.role, s.intake, s.epoch, s.leader,
    (SELECT f.mode || ' to ' || f.target || ', ' || f.phase FROM fail_overs f WHERE f.finished_at IS NULL) AS running,
    (SELECT ceil(extract(epoch FROM now() - min(coalesce(c.even_at, r.created_at))))::int
       FROM replicas r CROSS JOIN change_heads h
       LEFT JOIN replica_cursors c ON c.replica = r.name AND c.shard = h.shard
       WHERE h.pos > coalesce(c.pos, 0)) AS seconds_behind,
    (SELECT ceil(extract(epoch FROM now() - max(at)))::int FROM sync_cursors) AS seconds_silent,
    (SELECT count(*)::int FROM replicas WHERE error IS NOT NULL OR paused)
      + (SELECT count(*)::int FROM replica_quarantine) + (SELECT count(*)::int FROM replica_fuses WHERE closed_at IS NULL)
      AS troubles
  FROM site s`

const closedRemedy =
  'It closed since another site said that it leads, and waits to hear what that one had. Is that one gone for good: ' +
  '`baton fail-over hard --yes-leader-is-gone NAME` here.'

/** Role, epoch and lag of the site; an error of the statement is the caller's. */
export async function checkSite(postgres: Postgres): Promise<Finding> {
  const { rows } = await postgres.query<Row>(sql)
  const [site] = rows
  if (!site)
    return fault('Site', 'the row of the site is gone', 'Somebody deleted it by hand; restore the database.')
  if (site.role === 'alone') return ok('Site', 'alone: replicates to nobody')
  if (site.running) {
    const remedy = 'See `baton fail-over status`; `baton fail-over abort` gives it up while that is possible.'
    return warning('Site', `${describe(site)}; a fail-over is under way (${site.running})`, remedy)
  }
  if (site.role === 'replica')
    return ok('Site', `${describe(site)}; last word of the leader ${site.seconds_silent} s ago`)
  return judgeLeader(site)
}

const describe = ({ role, leader, intake, epoch }: Row): string =>
  `${role}${leader === null ? '' : ` of ${leader}`}, ${intake}, epoch ${epoch}`

function judgeLeader(site: Row): Finding {
  const found = `${describe(site)}; ${site.seconds_behind === null ? 'no replica is behind' : `a replica is ${site.seconds_behind} s behind`}`
  if (site.intake !== 'open') return fault('Site', found, closedRemedy)
  if (site.troubles > 0)
    return warning('Site', `${found}; ${site.troubles} troubles`, 'See `baton sync status`.')
  if ((site.seconds_behind ?? 0) > 60)
    return warning('Site', found, 'See `baton sync status`, and whether a worker runs.')
  return ok('Site', found)
}
