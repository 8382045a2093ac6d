import { Type } from 'typebox'
import type { Client } from '../src/platform/postgres/postgres.ts'
import { defineJob, done } from '../src/platform/queues/job.ts'
import type { Deps } from './deps.ts'
import { DATASET_TAKEN_OVER } from './errors.ts'
import { readTable, type TableItem, type TablePosition } from './tables/table.ts'

interface Checkpoint {
  /** The dataset is ours, and old rows may still be there. */
  clearing?: true
  rows: number
  rejected: { line: number; reason: string }[]
  /** Rejected lines beyond those that are listed. */
  moreRejected: number
  position?: TablePosition
}

const batchRows = 500
/** Old rows that go in one transaction: all of a large dataset in one would hold its locks, and a stop, for minutes. */
const biteRows = 10_000
const maxListed = 100

/**
 * Writes an uploaded CSV or NDJSON to `dataset_rows`. The rows of a batch and the place behind it are committed
 * together, so an import that is interrupted, however often, has each row once. It replaces what the dataset had;
 * the rows come into sight batch by batch. When two imports go to one dataset, the one that began last wins and
 * the other fails.
 */
export const importTable = defineJob({
  name: 'import',
  payload: Type.Object({ body: Type.String(), dataset: Type.String({ minLength: 1, maxLength: 200 }) }),
  attempts: 5,
  timeoutMs: 3_600_000,
  async run({ body, dataset }, { bodies }: Deps, ctx) {
    let so = ctx.checkpoint as Checkpoint | undefined
    if (!so) {
      so = { rows: 0, rejected: [], moreRejected: 0, clearing: true }
      await ctx.transact(so, (client) => takeOver(client, dataset, ctx.id))
    }
    if (so.clearing) {
      const clearing = so
      for await (const bite of ctx.iterate(() => bites())) {
        await ctx.transact(clearing, (client) => deleteBite(client, { dataset, job: ctx.id }, bite))
      }
      const { clearing: _done, ...cleared } = so
      so = cleared
    }
    const source = (from?: Checkpoint) => batchesOf(readTable(bodies, body, { from: from?.position }))
    for await (const batch of ctx.iterate(source)) {
      so = addBatch(so, batch)
      await ctx.transact(so, (client) => insertRows(client, { dataset, job: ctx.id }, batch))
      ctx.progress(so.rows)
    }
    const { rows, rejected, moreRejected } = so
    return done({ rows, rejected, ...(moreRejected > 0 && { moreRejected }) })
  },
})

async function* batchesOf(items: AsyncIterable<TableItem>): AsyncGenerator<TableItem[]> {
  let batch: TableItem[] = []
  for await (const item of items) {
    batch.push(item)
    if (batch.length < batchRows) continue
    yield batch
    batch = []
  }
  if (batch.length > 0) yield batch
}

function addBatch(so: Checkpoint, batch: TableItem[]): Checkpoint {
  const bad = batch.flatMap(({ line, rejected }) =>
    rejected === undefined ? [] : [{ line, reason: rejected }],
  )
  const rejected = [...so.rejected, ...bad]
  return {
    rows: so.rows + batch.length - bad.length,
    rejected: rejected.slice(0, maxListed),
    moreRejected: so.moreRejected + Math.max(0, rejected.length - maxListed),
    ...(batch.length > 0 && { position: (batch.at(-1) as TableItem).next }),
  }
}

async function takeOver(client: Client, dataset: string, job: string): Promise<void> {
  await client.query(
    `INSERT INTO datasets (name, import) VALUES ($1, $2)
     ON CONFLICT (name) DO UPDATE SET import = EXCLUDED.import, started_at = now()`,
    [dataset, job],
  )
}

interface Target {
  dataset: string
  job: string
}

/** Where the old rows were deleted up to, and whether there may be more. */
interface Bite {
  line: string
  isLast: boolean
}

function* bites(): Generator<Bite> {
  const bite: Bite = { line: '-1', isLast: false }
  while (!bite.isLast) yield bite
}

async function deleteBite(client: Client, { dataset, job }: Target, bite: Bite): Promise<void> {
  await assertOurs(client, { dataset, job })
  // Not from the beginning each time: the places of what was deleted would be walked again and again.
  const { rows } = await client.query<{ count: number; line: string | null }>(
    `WITH bite AS (SELECT line FROM dataset_rows WHERE dataset = $1 AND line > $2 ORDER BY line LIMIT ${biteRows}),
       gone AS (DELETE FROM dataset_rows d USING bite WHERE d.dataset = $1 AND d.line = bite.line)
     SELECT count(*)::int AS count, max(line)::text AS line FROM bite`,
    [dataset, bite.line],
  )
  bite.isLast = (rows[0]?.count ?? 0) < biteRows
  bite.line = rows[0]?.line ?? bite.line
}

/** Holds a newer import back until this transaction is committed; then that one deletes what it wrote with the rest. */
async function assertOurs(client: Client, { dataset, job }: Target): Promise<void> {
  const { rowCount } = await client.query('SELECT FROM datasets WHERE name = $1 AND import = $2 FOR SHARE', [
    dataset,
    job,
  ])
  if (rowCount === 0) throw DATASET_TAKEN_OVER({ dataset })
}

async function insertRows(client: Client, to: Target, batch: TableItem[]): Promise<void> {
  await assertOurs(client, to)
  const rows = batch.filter(({ data }) => data !== undefined)
  await client.query(
    `INSERT INTO dataset_rows (dataset, line, data)
     SELECT $1, line, data FROM unnest($2::bigint[], $3::json[]) AS given (line, data)`,
    [to.dataset, rows.map(({ line }) => line), rows.map(({ data }) => JSON.stringify(data))],
  )
}
