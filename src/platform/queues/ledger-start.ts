import type { Queryable } from '../postgres/postgres.ts'
import type { JobOrigin, Run, StartResult } from './ledger.ts'
import { joinCalls } from './ledger-batch.ts'
import { clearedAsCrash, isAlive } from './ledger-sql.ts'

/** Step 2. */
export interface Starts {
  start(id: string, run: Run): Promise<StartResult>
  /** The run is over as far as its runner is concerned, whatever becomes of the row. */
  end(token: string): void
}

/** A function of migration 0001, which says why it is one. */
const startRows = {
  name: 'jobs-start',
  text: 'SELECT * FROM jobs_start($1::uuid[], $2::uuid[], $3::text[])',
}
// The others are planned anew each time: they are rare, and a plan of yesterday may read the whole table.
const lookAtRows = `SELECT j.id, j.outcome IS NOT NULL AS finished, j.run_token AS token, j.runner, ${isAlive} AS alive,
      ceil(extract(epoch FROM j.run_at - now()) * 1000)::float8 AS delay_ms
    FROM jobs j WHERE j.id = ANY($1::uuid[])`
const releaseDead = `UPDATE jobs j SET ${clearedAsCrash}
    FROM unnest($1::uuid[], $2::uuid[]) AS r (id, token)
    WHERE j.id = r.id AND j.run_token = r.token AND (j.outcome IS NULL) IS TRUE AND NOT ${isAlive}
    RETURNING j.id, j.outcome`
const releaseOrphans = `UPDATE jobs j SET run_token = NULL FROM unnest($1::uuid[], $2::uuid[]) AS r (id, token)
    WHERE j.id = r.id AND j.run_token = r.token AND (j.outcome IS NULL) IS TRUE`

interface Request extends Run {
  id: string
}
interface StartedRow {
  token: string
  payload: unknown
  attempts: number
  max_attempts: number
  interruptions: number
  crashes: number
  checkpoint: unknown
  context: JobOrigin | null
}
interface LookRow {
  id: string
  finished: boolean
  token: string | null
  runner: string | null
  alive: boolean
  delay_ms: number
}

/**
 * The usual delivery finds its row free and takes one statement, shared with others. The rest is looked at in
 * statements of its own, so that a crash elsewhere does not slow down those who have nothing to do with it.
 */
export function createStarts(postgres: Queryable): Starts {
  /** Runs that this process knows to be its own and under way. */
  const underWay = new Set<string>()
  const options = { maxItems: 256, concurrency: 2 }
  const fast = joinCalls((requests: Request[]) => startFree(postgres, requests), options)
  const slow = joinCalls((requests: Request[]) => startHeld(postgres, requests, underWay), options)

  return {
    start: async (id, run) => {
      const request = { id, ...run }
      const result = (await fast.add(request)) ?? (await slow.add(request))
      if (result.kind === 'started') underWay.add(run.token)
      return result
    },
    end: (token) => void underWay.delete(token),
  }
}

/** Undefined for a row that was not free. */
async function startFree(postgres: Queryable, requests: Request[]): Promise<(StartResult | undefined)[]> {
  const sorted = requests.toSorted((a, b) => (a.id < b.id ? -1 : 1))
  const { rows } = await postgres.query<StartedRow>({
    ...startRows,
    values: [
      sorted.map((each) => each.id),
      sorted.map((each) => each.token),
      sorted.map((each) => each.runner),
    ],
  })
  const started = new Map(rows.map((row) => [row.token, row]))
  return requests.map((request) => {
    const row = started.get(request.token)
    return row && asStarted(row)
  })
}

const asStarted = (row: StartedRow): StartResult => ({
  kind: 'started',
  payload: row.payload,
  attempt: row.attempts + 1,
  maxAttempts: row.max_attempts,
  interruptions: row.interruptions,
  crashes: row.crashes,
  checkpoint: row.checkpoint ?? undefined,
  context: row.context ?? undefined,
})

type Verdict = { kind: 'answered'; result: StartResult } | { kind: 'free' } | Stale
interface Stale {
  kind: 'dead' | 'orphaned'
  token: string
}

async function startHeld(
  postgres: Queryable,
  requests: Request[],
  underWay: Set<string>,
): Promise<StartResult[]> {
  const { rows } = await postgres.query<LookRow>(lookAtRows, [requests.map((each) => each.id)])
  const found = new Map(rows.map((row) => [row.id, row]))
  const verdicts = requests.map((request) => judge(request, found.get(request.id), underWay))
  const ended = await release(postgres, requests, verdicts)
  const free = requests.filter(
    (request, index) => verdicts[index]?.kind !== 'answered' && !ended.has(request.id),
  )
  const started = free.length > 0 ? await startFree(postgres, free) : []
  const results = new Map(free.map((request, index) => [request, started[index]]))
  return requests.map((request, index) => {
    const verdict = verdicts[index]
    if (verdict?.kind === 'answered') return verdict.result
    // Without a result somebody else was quicker in the meantime: ask again a little later.
    return ended.get(request.id) ?? results.get(request) ?? { kind: 'held' }
  })
}

function judge(request: Request, row: LookRow | undefined, underWay: Set<string>): Verdict {
  const answer = (result: StartResult): Verdict => ({ kind: 'answered', result })
  if (!row) return answer({ kind: 'missing' })
  if (row.finished) return answer({ kind: 'finished' })
  if (row.token === null && row.delay_ms > 0) return answer({ kind: 'early', ms: row.delay_ms })
  if (row.token === null || row.token === request.token) return { kind: 'free' }
  // Held in our own name, yet nobody here is running it: a start whose answer never reached us.
  if (row.runner === request.runner && !underWay.has(row.token)) return { kind: 'orphaned', token: row.token }
  return row.alive ? answer({ kind: 'held' }) : { kind: 'dead', token: row.token }
}

/** Frees what nobody runs. @returns rows that ended by it: set aside as poison, or cancelled meanwhile */
async function release(
  postgres: Queryable,
  requests: Request[],
  verdicts: Verdict[],
): Promise<Map<string, StartResult>> {
  const tokensOf = (kind: 'dead' | 'orphaned'): { id: string; token: string }[] =>
    requests.flatMap((request, index) => {
      const verdict = verdicts[index]
      return verdict?.kind === kind ? [{ id: request.id, token: verdict.token }] : []
    })
  const dead = tokensOf('dead')
  const orphaned = tokensOf('orphaned')
  if (orphaned.length > 0) await postgres.query(releaseOrphans, pairs(orphaned))
  if (dead.length === 0) return new Map()
  const { rows } = await postgres.query<{ id: string; outcome: string | null }>(releaseDead, pairs(dead))
  return new Map(
    rows.flatMap((row): [string, StartResult][] => {
      if (row.outcome === null) return []
      return [[row.id, { kind: row.outcome === 'failed' ? 'poison' : 'finished' }]]
    }),
  )
}

const pairs = (rows: { id: string; token: string }[]): unknown[] => [
  rows.map((row) => row.id),
  rows.map((row) => row.token),
]
