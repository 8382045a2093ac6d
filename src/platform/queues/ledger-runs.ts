import { type Postgres, type Queryable, withAnswerIn } from '../postgres/postgres.ts'
import type { Ending, Ledger, ReleaseCause } from './ledger.ts'
import { joinCalls } from './ledger-batch.ts'
import { toJsonOrNull } from './ledger-json.ts'
import { clearedAsCrash, clearedAsInterruption } from './ledger-sql.ts'
import { createStarts } from './ledger-start.ts'

/** Steps 2 to 6: what runners do to rows. */
export type Runs = Pick<
  Ledger,
  'start' | 'finish' | 'finishWith' | 'saveProgress' | 'saveCheckpoint' | 'releaseRunner'
>

/** Functions of migration 0001, which says why they are functions. */
const finishRows = {
  name: 'jobs-finish',
  text: `SELECT id FROM jobs_finish($1::uuid[], $2::uuid[], $3::text[], $4::json[], $5::json[], $6::float8[], $7::int[],
    $8::int[]) AS id`,
}
const saveNotes = {
  name: 'jobs-note',
  text: 'SELECT id FROM jobs_note($1::uuid[], $2::uuid[], $3::json[], $4::json[], $5) AS id',
}

const forgetRunner = 'UPDATE nodes SET runners = array_remove(runners, $1) WHERE $1 = ANY(runners)'
/** Only what was due can be held, so the rows that wait for later are not looked at. */
const releaseRows = (cause: ReleaseCause) => `UPDATE jobs j
  SET ${cause === 'crash' ? clearedAsCrash : clearedAsInterruption}
  WHERE j.outcome IS NULL AND j.run_token IS NOT NULL AND j.runner = $1 AND j.run_at <= now() RETURNING j.id`

interface Holding {
  id: string
  token: string
}
interface FinishRow extends Holding {
  outcome: 'completed' | 'failed' | 'cancelled' | null
  result: string | null
  error: string | null
  delayMs: number | null
  attempts: 0 | 1
  interruptions: 0 | 1
}
interface Note extends Holding {
  progress: string | null
  checkpoint: string | null
}

/**
 * Longest wait for an answer to these, ms; they take milliseconds and may be asked again. A handler's own statements may
 * take a minute, but when a connection has died without a word the jobs must not wait for as long.
 */
const answerMs = 10_000

export function createRuns(postgres: Postgres): Runs {
  const soon = withAnswerIn(postgres, answerMs)
  const starts = createStarts(soon)
  const finishes = joinCalls((rows: FinishRow[]) => writeFinishes(soon, rows), {
    maxItems: 256,
    concurrency: 2,
  })
  const jottings = joinCalls((rows: Note[]) => writeNotes(soon, rows, true), {
    maxItems: 256,
    concurrency: 1,
  })

  return {
    start: starts.start,
    finish: async (id, token, ending) => {
      const written = await finishes.add({ id, token, ...endingColumns(ending) })
      // Not before: while the end waits to be written, another delivery must not take the row for an orphan.
      starts.end(token)
      return written
    },
    finishWith: async (database, id, token, ending) => {
      starts.end(token)
      const soonHere = withAnswerIn(database, answerMs)
      const [written] = await writeFinishes(soonHere, [{ id, token, ...endingColumns(ending) }])
      return written ?? false
    },
    saveProgress: async (id, token, progress) =>
      jottings.add({ id, token, progress: toJsonOrNull(progress, 'progress'), checkpoint: null }),
    saveCheckpoint: async (id, token, checkpoint, database) => {
      const note = { id, token, progress: null, checkpoint: toJsonOrNull(checkpoint, 'checkpoint') }
      if (!database) return jottings.add(note)
      const [written] = await writeNotes(withAnswerIn(database, answerMs), [note], false)
      return written ?? false
    },
    releaseRunner: async (runner, cause = 'crash') => {
      const forget = () => postgres.query(forgetRunner, [runner])
      // From then on whoever is delivered one of its jobs takes it over without waiting, and counts a crash.
      if (cause === 'crash') await forget()
      const { rows } = await postgres.query<{ id: string }>(releaseRows(cause), [runner])
      if (cause === 'interruption') await forget()
      return rows.map((row) => row.id)
    },
  }
}

async function writeFinishes(database: Queryable, rows: FinishRow[]): Promise<boolean[]> {
  return eachIdOnce(rows, async (once) => {
    const { rows: written } = await database.query<{ id: string }>({
      ...finishRows,
      values: [
        once.map((row) => row.id),
        once.map((row) => row.token),
        once.map((row) => row.outcome),
        once.map((row) => row.result),
        once.map((row) => row.error),
        once.map((row) => row.delayMs),
        once.map((row) => row.attempts),
        once.map((row) => row.interruptions),
      ],
    })
    return written
  })
}

/** @param relaxed whether nobody waits for the disk; not within somebody else's transaction */
async function writeNotes(database: Queryable, rows: Note[], relaxed: boolean): Promise<boolean[]> {
  const merged = mergeNotes(rows)
  const saved = await eachIdOnce(merged, async (once) => {
    const { rows: written } = await database.query<{ id: string }>({
      ...saveNotes,
      values: [
        once.map((row) => row.id),
        once.map((row) => row.token),
        once.map((row) => row.progress),
        once.map((row) => row.checkpoint),
        relaxed,
      ],
    })
    return written
  })
  const tokens = new Set(merged.filter((_row, index) => saved[index]).map((row) => row.token))
  return rows.map((row) => tokens.has(row.token))
}

/**
 * Postgres finds what belongs to a row by its id. Two runs of one job may end at the same time, the one that lost it
 * and the one that has it, so an id that comes twice goes into another statement. In the order of the ids, so that
 * two batches that meet do not wait for each other.
 */
async function eachIdOnce<T extends Holding>(
  rows: T[],
  write: (once: T[]) => Promise<{ id: string }[]>,
): Promise<boolean[]> {
  const done = new Set<T>()
  for (let left = rows; left.length > 0; ) {
    const once = new Map<string, T>()
    for (const row of left) if (!once.has(row.id)) once.set(row.id, row)
    const written = await write(byId([...once.values()]))
    for (const { id } of written) done.add(once.get(id) as T)
    left = left.filter((row) => once.get(row.id) !== row)
  }
  return rows.map((row) => done.has(row))
}

/** One row a run, the last word of each column: an UPDATE that meets a row twice takes any of the two. */
function mergeNotes(rows: Note[]): Note[] {
  const merged = new Map<string, Note>()
  for (const row of rows) {
    const earlier = merged.get(row.token)
    merged.set(row.token, {
      ...row,
      progress: row.progress ?? earlier?.progress ?? null,
      checkpoint: row.checkpoint ?? earlier?.checkpoint ?? null,
    })
  }
  return [...merged.values()]
}

const byId = <T extends { id: string }>(rows: T[]): T[] =>
  rows.toSorted((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0))

type EndingColumns = Omit<FinishRow, 'id' | 'token'>
const nothing: EndingColumns = {
  outcome: null,
  result: null,
  error: null,
  delayMs: null,
  attempts: 0,
  interruptions: 0,
}

function endingColumns(ending: Ending): EndingColumns {
  switch (ending.kind) {
    case 'completed':
      return { ...nothing, outcome: 'completed', attempts: 1, result: toJsonOrNull(ending.result, 'result') }
    case 'failed':
      return { ...nothing, outcome: 'failed', attempts: 1, error: toJsonOrNull(ending.error, 'error') }
    case 'cancelled': {
      const error = { code: 'JOB_CANCELLED', message: ending.reason }
      return { ...nothing, outcome: 'cancelled', error: toJsonOrNull(error, 'error') }
    }
    case 'retry':
      return {
        ...nothing,
        attempts: 1,
        error: toJsonOrNull(ending.error, 'error'),
        delayMs: ending.delayMs,
      }
    case 'snooze':
      return { ...nothing, delayMs: ending.delayMs }
    case 'interrupted':
      return { ...nothing, interruptions: 1 }
  }
}
