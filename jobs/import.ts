import { Type } from 'typebox'
import type { Client } from '../src/platform/postgres/postgres.ts'
import { defineJob, done } from '../src/platform/queues/job.ts'
import type { Deps } from './deps.ts'
import { DATASET_TAKEN_OVER } from './errors.ts'
import { readTable, type TableItem, type TablePosition } from './tables/table.ts'

interface Checkpoint {
  rows: number
  rejected: { line: number; reason: string }[]
  /** Rejected lines beyond those that are listed. */
  moreRejected: number
  position?: TablePosition
}

const batchRows = 500
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
      so = { rows: 0, rejected: [], moreRejected: 0 }
      await ctx.transact(so, (client) => clearDataset(client, dataset, ctx.id))
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

async function clearDataset(client: Client, dataset: string, job: string): Promise<void> {
  await client.query(
    `INSERT INTO datasets (name, import) VALUES ($1, $2)
     ON CONFLICT (name) DO UPDATE SET import = EXCLUDED.import, started_at = now()`,
    [dataset, job],
  )
  await client.query('DELETE FROM dataset_rows WHERE dataset = $1', [dataset])
}

async function insertRows(
  client: Client,
  to: { dataset: string; job: string },
  batch: TableItem[],
): Promise<void> {
  // Holds a newer import back until this batch is committed; then that one deletes it with the rest.
  const { rowCount } = await client.query('SELECT FROM datasets WHERE name = $1 AND import = $2 FOR SHARE', [
    to.dataset,
    to.job,
  ])
  if (rowCount === 0) throw DATASET_TAKEN_OVER({ dataset: to.dataset })
  const rows = batch.filter(({ data }) => data !== undefined)
  await client.query(
    `INSERT INTO dataset_rows (dataset, line, data)
     SELECT $1, line, data FROM unnest($2::bigint[], $3::json[]) AS given (line, data)`,
    [to.dataset, rows.map(({ line }) => line), rows.map(({ data }) => JSON.stringify(data))],
  )
}
