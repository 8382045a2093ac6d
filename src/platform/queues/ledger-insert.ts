import { sha256 } from '../../core/digest.ts'
import type { Postgres, Queryable } from '../postgres/postgres.ts'
import type { Accepted, JobState, NewJob } from './ledger.ts'
import { asInputError, isDataError, runAgainOnDeadlock } from './ledger-batch.ts'
import { toJson, toJsonOrNull } from './ledger-json.ts'
import { rowState } from './ledger-views.ts'

const insertText = `
  INSERT INTO jobs (id, name, queue, payload, priority, max_attempts, dedupe_key, context, run_at, queued)
  SELECT id, name, queue, payload, priority, max_attempts, dedupe_key, context,
    coalesce(to_timestamp(run_at_ms / 1000), now() + delay_ms * interval '1 millisecond'), queued
  FROM unnest($1::uuid[], $2::text[], $3::text[], $4::json[], $5::int[], $6::int[], $7::text[], $8::json[],
    $9::float8[], $10::float8[], $11::bool[])
    AS r (id, name, queue, payload, priority, max_attempts, dedupe_key, context, run_at_ms, delay_ms, queued)`

const delayColumn = `greatest(0, ceil(extract(epoch FROM run_at - now()) * 1000))::float8 AS delay_ms`

/** Nothing comes back: the caller knows everything that it could be told. */
const insertPlain = { name: 'jobs-insert', text: insertText }
const insertTimed = {
  name: 'jobs-insert-timed',
  text: `${insertText} RETURNING id, ${delayColumn}`,
}
/**
 * The usual batch: rows of one job that differ in what they carry. What is alike is sent once, and JSON is sent as one
 * array of it, which need not be escaped once more.
 */
const insertAlike = {
  name: 'jobs-insert-alike',
  text: `INSERT INTO jobs (id, payload, context, name, queue, priority, max_attempts, run_at, queued)
    SELECT id, payload, context, $4, $5, $6::int, $7::int, now() + $8::float8 * interval '1 millisecond', $9::bool
    FROM ROWS FROM (unnest($1::uuid[]), json_array_elements($2::json), json_array_elements($3::json))
      AS r (id, payload, context)`,
}
/** In the order of the keys, so that two batches with the same keys wait for, and never upon, each other. */
const insertDeduped = {
  name: 'jobs-insert-deduped',
  text: `${insertText} ORDER BY name, dedupe_key
    ON CONFLICT (name, dedupe_key) WHERE outcome IS NULL AND dedupe_key IS NOT NULL DO NOTHING
    RETURNING id, ${delayColumn}`,
}
/** Planned anew each time: a plan of yesterday may read the whole table. */
const findHolders = `SELECT j.id, j.name, j.dedupe_key, ${rowState} AS state, ${delayColumn}
    FROM unnest($1::text[], $2::text[]) AS r (name, dedupe_key)
    JOIN jobs j ON j.name = r.name AND j.dedupe_key = r.dedupe_key AND j.outcome IS NULL`

/** How often a key may be freed between our insert and our look before we give up. */
const maxRounds = 10

interface Inserted {
  id: string
  delay_ms: number
}
interface Holder extends Inserted {
  name: string
  dedupe_key: string
  state: JobState
}

/**
 * Step 1: one statement for all rows, and all or none of them. Only rows with a dedupe key need a transaction, since
 * whoever loses a key to another has to look for the winner.
 */
export async function insertJobs(
  postgres: Postgres,
  rows: NewJob[],
  database: Queryable | undefined,
): Promise<Accepted[]> {
  if (rows.length === 0) return []
  try {
    if (rows.some((row) => row.dedupeKey !== undefined)) {
      return database
        ? await insertWithKeys(database, rows)
        : await runAgainOnDeadlock(() => postgres.transaction((client) => insertWithKeys(client, rows)))
    }
    return await insertWithoutKeys(database ?? postgres, rows)
  } catch (error) {
    throw isDataError(error) ? asInputError(error) : error
  }
}

async function insertWithoutKeys(database: Queryable, rows: NewJob[]): Promise<Accepted[]> {
  if (rows.every((row) => row.runAt === undefined)) {
    const statement = areAlike(rows)
      ? { ...insertAlike, values: valuesOfAlike(rows) }
      : { ...insertPlain, values: columnsOf(rows) }
    await database.query(statement)
    return rows.map((row) => ({ id: row.id, duplicate: false, delayMs: row.delayMs }))
  }
  const { rows: inserted } = await database.query<Inserted>({ ...insertTimed, values: columnsOf(rows) })
  const delays = new Map(inserted.map((each) => [each.id, each.delay_ms]))
  return rows.map((row) => ({ id: row.id, duplicate: false, delayMs: delays.get(row.id) ?? 0 }))
}

async function insertWithKeys(database: Queryable, rows: NewJob[]): Promise<Accepted[]> {
  const accepted = new Map<NewJob, Accepted>()
  for (let round = 0, missing = rows; missing.length > 0; round++) {
    if (round === maxRounds) throw new Error('a dedupe key changes hands faster than it can be looked up')
    const { rows: inserted } = await database.query<Inserted>({
      ...insertDeduped,
      values: columnsOf(missing),
    })
    const delays = new Map(inserted.map((each) => [each.id, each.delay_ms]))
    for (const row of missing) {
      const delayMs = delays.get(row.id)
      if (delayMs !== undefined) accepted.set(row, { id: row.id, duplicate: false, delayMs })
    }
    const losers = missing.filter((row) => !accepted.has(row))
    await answerWithHolders(database, losers, accepted)
    // The job that had the key may have finished between the two statements: then the key is free again.
    missing = losers.filter((row) => !accepted.has(row))
  }
  return rows.map((row) => accepted.get(row) as Accepted)
}

async function answerWithHolders(
  database: Queryable,
  losers: NewJob[],
  accepted: Map<NewJob, Accepted>,
): Promise<void> {
  if (losers.length === 0) return
  const { rows: holders } = await database.query<Holder>(findHolders, [
    losers.map((row) => row.name),
    losers.map((row) => keyOf(row)),
  ])
  const byKey = new Map(holders.map((each) => [`${each.name} ${each.dedupe_key}`, each]))
  for (const row of losers) {
    const holder = byKey.get(`${row.name} ${keyOf(row)}`)
    if (holder)
      accepted.set(row, { id: holder.id, duplicate: true, delayMs: holder.delay_ms, state: holder.state })
  }
}

function areAlike(rows: NewJob[]): boolean {
  const [first] = rows
  return rows.every(
    (row) =>
      row.context !== undefined &&
      row.name === first?.name &&
      row.queue === first.queue &&
      row.priority === first.priority &&
      row.maxAttempts === first.maxAttempts &&
      row.delayMs === first.delayMs &&
      row.queued === first.queued,
  )
}

function valuesOfAlike(rows: NewJob[]): unknown[] {
  const [first] = rows
  return [
    `{${rows.map((row) => row.id).join()}}`,
    `[${rows.map(payloadOf).join()}]`,
    `[${rows.map((row) => toJson(row.context, 'context')).join()}]`,
    first?.name,
    first?.queue,
    first?.priority,
    first?.maxAttempts,
    first?.delayMs,
    first?.queued,
  ]
}

const payloadOf = (row: NewJob): string => row.payloadJson ?? toJson(row.payload, 'payload')

function columnsOf(rows: NewJob[]): unknown[] {
  return [
    rows.map((row) => row.id),
    rows.map((row) => row.name),
    rows.map((row) => row.queue),
    rows.map(payloadOf),
    rows.map((row) => row.priority),
    rows.map((row) => row.maxAttempts),
    rows.map(keyOf),
    rows.map((row) => toJsonOrNull(row.context, 'context')),
    rows.map((row) => row.runAt ?? null),
    rows.map((row) => row.delayMs),
    rows.map((row) => row.queued),
  ]
}

/** Text columns hold no NUL and index entries no more than 2,704 bytes, so such a key is kept as its digest. */
function keyOf(row: NewJob): string | null {
  const key = row.dedupeKey
  if (key === undefined) return null
  const fits = key.length <= 500 && !key.includes('\0') && key.isWellFormed()
  return fits ? key : `sha256:${sha256(JSON.stringify(key))}`
}
