import type { Postgres, Queryable } from '../postgres/postgres.ts'
import type { Ending, Ledger } from './ledger.ts'
import { joinCalls } from './ledger-batch.ts'
import { toJsonOrNull } from './ledger-json.ts'
import { clearedAsCrash, relaxed } from './ledger-sql.ts'
import { createStarts } from './ledger-start.ts'

/** Steps 2 to 6: what runners do to rows. */
export type Runs = Pick<
  Ledger,
  'start' | 'finish' | 'finishWith' | 'saveProgress' | 'saveCheckpoint' | 'releaseRunner'
>

const finishRows = {
  name: 'jobs-finish',
  // Whatever goes back although its cancel was asked for is finished instead: nobody else would do it.
  text: `UPDATE jobs j SET
      outcome = CASE WHEN r.outcome IS NULL AND j.cancel_requested_at IS NOT NULL THEN 'cancelled' ELSE r.outcome END,
      finished_at = CASE WHEN r.outcome IS NOT NULL OR j.cancel_requested_at IS NOT NULL THEN now() END,
      result = r.result,
      error = CASE WHEN r.outcome IS NULL THEN coalesce(r.error, j.error) ELSE r.error END,
      run_at = CASE WHEN r.delay_ms IS NULL THEN j.run_at ELSE now() + r.delay_ms * interval '1 millisecond' END,
      attempts = j.attempts + r.attempts, interruptions = j.interruptions + r.interruptions, run_token = NULL
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::json[], $5::json[], $6::float8[], $7::int[], $8::int[])
      AS r (id, token, outcome, result, error, delay_ms, attempts, interruptions)
    WHERE j.id = r.id AND j.run_token = r.token
    RETURNING r.token`,
}

const notes = `SET progress = coalesce(r.progress, j.progress), checkpoint = coalesce(r.checkpoint, j.checkpoint)`
const noteRows = `unnest($1::uuid[], $2::uuid[], $3::json[], $4::json[]) AS r (id, token, progress, checkpoint)
    WHERE j.id = r.id AND j.run_token = r.token`
const saveNotes = {
  name: 'jobs-save-notes',
  text: `WITH relaxed AS MATERIALIZED (${relaxed})
    UPDATE jobs j ${notes} FROM relaxed, ${noteRows} AND relaxed.setting = 'off' RETURNING r.token`,
}
/** In the transaction of a handler, whose own writes are to be as durable as it chose. */
const saveNotesWith = {
  name: 'jobs-save-notes-with',
  text: `UPDATE jobs j ${notes} FROM ${noteRows} RETURNING r.token`,
}

const forgetRunner = {
  name: 'nodes-forget-runner',
  text: `UPDATE nodes SET runners = array_remove(runners, $1) WHERE $1 = ANY(runners)`,
}
/** Only what was due can be held, so the rows that wait for later are not looked at. */
const releaseRows = {
  name: 'jobs-release-runner',
  text: `UPDATE jobs j SET ${clearedAsCrash}
    WHERE j.outcome IS NULL AND j.run_token IS NOT NULL AND j.runner = $1 AND j.run_at <= now() RETURNING j.id`,
}

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

export function createRuns(postgres: Postgres): Runs {
  const starts = createStarts(postgres)
  const finishes = joinCalls((rows: FinishRow[]) => writeFinishes(postgres, rows), {
    maxItems: 256,
    concurrency: 2,
  })
  const jottings = joinCalls((rows: Note[]) => writeNotes(postgres, saveNotes, rows), {
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
      const [written] = await writeFinishes(database, [{ id, token, ...endingColumns(ending) }])
      return written ?? false
    },
    saveProgress: async (id, token, progress) =>
      jottings.add({ id, token, progress: toJsonOrNull(progress, 'progress'), checkpoint: null }),
    saveCheckpoint: async (id, token, checkpoint, database) => {
      const note = { id, token, progress: null, checkpoint: toJsonOrNull(checkpoint, 'checkpoint') }
      if (!database) return jottings.add(note)
      const [written] = await writeNotes(database, saveNotesWith, [note])
      return written ?? false
    },
    releaseRunner: async (runner) => {
      // From here on whoever is delivered one of its jobs takes it over at once, without waiting for the rest.
      await postgres.query({ ...forgetRunner, values: [runner] })
      const { rows } = await postgres.query<{ id: string }>({ ...releaseRows, values: [runner] })
      return rows.map((row) => row.id)
    },
  }
}

async function writeFinishes(database: Queryable, rows: FinishRow[]): Promise<boolean[]> {
  const sorted = byId(rows)
  const { rows: written } = await database.query<{ token: string }>({
    ...finishRows,
    values: [
      sorted.map((row) => row.id),
      sorted.map((row) => row.token),
      sorted.map((row) => row.outcome),
      sorted.map((row) => row.result),
      sorted.map((row) => row.error),
      sorted.map((row) => row.delayMs),
      sorted.map((row) => row.attempts),
      sorted.map((row) => row.interruptions),
    ],
  })
  const tokens = new Set(written.map((each) => each.token))
  return rows.map((row) => tokens.has(row.token))
}

async function writeNotes(
  database: Queryable,
  statement: { name: string; text: string },
  rows: Note[],
): Promise<boolean[]> {
  const merged = byId(mergeNotes(rows))
  const { rows: written } = await database.query<{ token: string }>({
    ...statement,
    values: [
      merged.map((row) => row.id),
      merged.map((row) => row.token),
      merged.map((row) => row.progress),
      merged.map((row) => row.checkpoint),
    ],
  })
  const tokens = new Set(written.map((each) => each.token))
  return rows.map((row) => tokens.has(row.token))
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

/** Every batch takes its rows in the same order, so that two of them do not wait for each other. */
export const byId = <T extends { id: string }>(rows: T[]): T[] =>
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
