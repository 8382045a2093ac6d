import { setTimeout as pause } from 'node:timers/promises'
import type { Accepted, Load } from './load.ts'
import { childrenOfWorker, type Site } from './site.ts'

interface Row extends Record<string, unknown> {
  id: string
  name: string
  outcome: string | null
  code: string | null
  attempts: number
  interruptions: number
  crashes: number
  retried: number
  held: boolean
  result: { n?: number } | null
}

/** Waits until every row has ended, and tells how long that took; the check says what has not. */
export async function settle(site: Site, limitMs: number): Promise<number> {
  const began = performance.now()
  for (;;) {
    const left = await site.database
      .query<{ left: number }>('SELECT count(*)::int AS left FROM jobs WHERE outcome IS NULL')
      .then(({ rows }) => rows[0]?.left)
      .catch(() => undefined)
    const tookMs = performance.now() - began
    if (left === 0 || tookMs > limitMs) return Math.round(tookMs)
    await pause(200)
  }
}

/** Compares what stands in the stores with what was promised. @returns the breaches */
export async function checkHistory(site: Site, load: Load): Promise<string[]> {
  const rows = await readRows(site)
  const breaches = [...site.breaches, ...load.breaches]
  for (const job of load.accepted.values()) {
    const row = rows.get(job.id)
    if (!row) breaches.push(`${job.name} ${job.id} was accepted and has no row`)
    else breaches.push(...judgeEnd(job, row))
  }
  breaches.push(...(await judgeEffects(site, rows)))
  breaches.push(...(await judgeSteps(site, rows, load)))
  breaches.push(...judgeRuns(site, rows))
  breaches.push(...(await judgeQueue(site)))
  breaches.push(...(await judgeChildren(site)))
  return breaches
}

async function readRows(site: Site): Promise<Map<string, Row>> {
  const { rows } = await site.database.query<Row>(
    `SELECT id, name, outcome, error->>'code' AS code, attempts, interruptions, crashes, retried, result,
       run_token IS NOT NULL AS held FROM jobs`,
  )
  return new Map(rows.map((row) => [row.id, row]))
}

function* judgeEnd(job: Accepted, row: Row): Generator<string> {
  const who = `${job.name} ${job.id}`
  const state = JSON.stringify(row)
  if (row.outcome === null) yield `${who} has not ended: ${state}`
  else if (row.held) yield `${who} has ended and is held: ${state}`
  if (row.outcome === 'cancelled' && !job.cancelled) yield `${who} was cancelled by nobody: ${state}`
  if (row.outcome === 'completed') {
    if (job.name === 'doomed') yield `${who} cannot have been completed: ${state}`
    if (row.result?.n !== job.n) yield `${who} has the result of another: ${state}, not ${job.n}`
  }
  if (row.outcome === 'failed') {
    const isPoison = row.code === 'JOB_POISONOUS' && row.crashes >= 5
    const isDoomed = row.code === 'DOOMED' && job.name === 'doomed' && row.attempts === 2
    if (!isPoison && !isDoomed) yield `${who} failed without a reason: ${state}`
  }
}

async function judgeEffects({ database }: Site, rows: Map<string, Row>): Promise<string[]> {
  const { rows: effects } = await database.query<{ job: string; count: number }>(
    'SELECT job, count(*)::int AS count FROM effects GROUP BY job',
  )
  const counts = new Map(effects.map(({ job, count }) => [job, count]))
  const breaches: string[] = []
  for (const [id, count] of counts) {
    const row = rows.get(id)
    if (row?.outcome !== 'completed') breaches.push(`an effect of a job that is ${row?.outcome}: ${id}`)
    if (count !== 1) breaches.push(`${count} effects of ${id}`)
  }
  for (const row of rows.values()) {
    const has = row.name === 'effect' || row.name === 'stubborn'
    if (has && row.outcome === 'completed' && !counts.has(row.id)) {
      breaches.push(`${row.name} ${row.id} is completed without its effect`)
    }
  }
  return breaches
}

async function judgeSteps({ database }: Site, rows: Map<string, Row>, load: Load): Promise<string[]> {
  const { rows: found } = await database.query<{
    job: string
    count: number
    distinct: number
    last: number
  }>(
    `SELECT job, count(*)::int AS count, count(DISTINCT step)::int AS distinct, max(step) AS last
     FROM steps GROUP BY job`,
  )
  return found.flatMap(({ job, count, distinct, last }) => {
    if (count !== distinct) return [`${count - distinct} steps of ${job} were repeated`]
    if (count !== last) return [`of the steps of ${job} up to ${last} there are only ${count}`]
    const wanted = load.accepted.get(job)?.steps
    const complete = rows.get(job)?.outcome === 'completed'
    return complete && wanted !== undefined && wanted !== count
      ? [`${job} is completed with ${count} of ${wanted} steps`]
      : []
  })
}

/**
 * A run that began is counted: as an attempt, or as an interruption. A run that was cancelled is neither. A start that
 * a crash of Postgres took away is not counted either (docs/protocols/jobs.md, what is assumed).
 */
function judgeRuns(site: Site, rows: Map<string, Row>): string[] {
  const breaches: string[] = []
  for (const [id, began] of site.runs()) {
    const row = rows.get(id)
    if (!row) {
      breaches.push(`a job ran that has no row: ${id}`)
      continue
    }
    // A retry by hand begins the attempts anew.
    if (row.retried > 0) continue
    const counted =
      row.attempts + row.interruptions + (row.outcome === 'cancelled' ? 1 : 0) + site.postgresCrashes
    if (began > counted)
      breaches.push(`${row.name} ${id} began ${began} times and counts ${counted}: ${JSON.stringify(row)}`)
  }
  return breaches
}

/** Once the faults are over every worker has all of its children, and each of them takes jobs. */
async function judgeChildren({ database, workers, neverReady }: Site): Promise<string[]> {
  const wanted = workers.map(() => Array.from({ length: childrenOfWorker }, () => 'up').join())
  const look = async (): Promise<string[]> => {
    const { rows } = await database.query<{ states: string }>(
      `SELECT (SELECT string_agg(child->>'state', ',') FROM jsonb_array_elements(n.children::jsonb) AS child) AS states
       FROM nodes n WHERE kind = 'worker' AND heartbeat_at > now() - interval '4 seconds'`,
    )
    return rows.map((row) => row.states)
  }
  let found = await look()
  for (let looks = 0; looks < 75 && found.join(';') !== wanted.join(';'); looks++) {
    await pause(200)
    found = await look()
  }
  const missing =
    found.join(';') === wanted.join(';') ? [] : [`the children are not all up: ${found.join('; ')}`]
  return [...missing, ...neverReady.map((line) => `a child never became ready: ${line}`)]
}

/** What is left in the engine would be delivered for nothing, or sits in its memory for ever. */
async function judgeQueue({ backend }: Site): Promise<string[]> {
  let counts = await backend.counts('default')
  for (let look = 0; look < 75 && Object.values(counts).some((count) => count > 0); look++) {
    await pause(200)
    counts = await backend.counts('default')
  }
  return Object.values(counts).some((count) => count > 0)
    ? [`the queue is not empty: ${JSON.stringify(counts)}`]
    : []
}

/** What is going on, for a site that does not come to its end. */
export async function describeScene({ database, backend }: Site): Promise<string[]> {
  const questions = [
    `SELECT kind, state, now() - heartbeat_at AS silent, children FROM nodes ORDER BY started_at`,
    `SELECT application_name, state, wait_event, count(*)::int, max(now() - query_start)::text AS longest,
       min(left(query, 90)) AS query FROM pg_stat_activity WHERE datname = current_database() GROUP BY 1, 2, 3`,
    `SELECT name, queued, run_token IS NOT NULL AS held, count(*)::int, min(run_at) AS from, max(run_at) AS to
       FROM jobs WHERE outcome IS NULL GROUP BY 1, 2, 3`,
    `SELECT pid, granted, mode, locktype, relation::regclass::text FROM pg_locks WHERE NOT granted LIMIT 20`,
  ]
  const lines: string[] = []
  for (const question of questions) {
    const { rows } = await database.query(question).catch((error: unknown) => ({ rows: [String(error)] }))
    lines.push(...rows.map((row) => JSON.stringify(row)))
  }
  const counts = await backend.counts('default').catch(String)
  return [...lines, `entries: ${JSON.stringify(counts)}`]
}
