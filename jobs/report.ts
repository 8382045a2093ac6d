import { Type } from 'typebox'
import { defineJob, done } from '../src/platform/queues/job.ts'
import type { Deps } from './deps.ts'
import { COLUMN_UNKNOWN, REPORT_TOO_LONG } from './errors.ts'
import { readTable, type TableItem, type TablePosition } from './tables/table.ts'

interface Checkpoint {
  counts: [string, number][]
  rows: number
  rejected: number
  position: TablePosition
}

const maxValues = 5_000

/**
 * Counts the rows of an uploaded CSV or NDJSON by a column. An interrupted run goes on where it was. Lines that are
 * no rows are left out and their number is logged; `import` says which they are.
 */
export const report = defineJob({
  name: 'report',
  payload: Type.Object({ body: Type.String(), column: Type.String() }),
  attempts: 5,
  async run({ body, column }, { bodies }: Deps, ctx) {
    const before = ctx.checkpoint as Checkpoint | undefined
    const counts = new Map<string, number>(before?.counts)
    let { rows = 0, rejected = 0 } = before ?? {}
    const source = (from?: Checkpoint) => readTable(bodies, body, { column, from: from?.position })
    const save = ({ next }: TableItem): Checkpoint => ({
      counts: [...counts],
      rows,
      rejected,
      position: next,
    })

    for await (const { data } of ctx.iterate(source, { save })) {
      if (data === undefined) rejected++
      else if (rows++ === 0 && !Object.hasOwn(data, column))
        throw COLUMN_UNKNOWN({ column, columns: Object.keys(data).join(', ') })
      else count(counts, Object.hasOwn(data, column) ? data[column] : undefined)
      if (counts.size > maxValues) throw REPORT_TOO_LONG({ column, max: maxValues })
      ctx.progress(rows)
    }
    if (rejected > 0) ctx.log.warn({ rejected }, 'lines of the table are no rows')
    return done(Object.fromEntries(counts))
  },
})

/** An object or a list of NDJSON is counted by its JSON, and what is missing as the empty text. */
function count(counts: Map<string, number>, value: unknown): void {
  const key = typeof value === 'string' ? value : value == null ? '' : JSON.stringify(value)
  counts.set(key, (counts.get(key) ?? 0) + 1)
}
