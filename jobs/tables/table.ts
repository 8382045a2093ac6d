import type { Bodies } from '../../src/domain/bodies/bodies.ts'
import { COLUMN_UNKNOWN, TABLE_INVALID } from '../errors.ts'
import { createCsvRecord, delimiterOf } from './csv-record.ts'
import { type Line, maxLineBytes, readLines, withoutMark } from './lines.ts'

/** A row, or the reason why a line is none. */
export interface TableItem {
  /** The line that it began on, from 1. */
  line: number
  data?: Record<string, unknown>
  rejected?: string
  /** Where to go on behind it; JSON, for a checkpoint. */
  next: TablePosition
}

export interface TablePosition {
  byte: number
  line: number
  format: TableFormat
}

type TableFormat = { kind: 'ndjson' } | { kind: 'csv'; delimiter: string; columns: string[] }

export interface TableOptions {
  /** The `next` of the last row that was worked on; from the beginning unless said. */
  from?: TablePosition | undefined
  /** A column that must be there. */
  column?: string
}

/**
 * The rows of a body that is CSV with a header line (comma, semicolon or tab), or NDJSON, told by its first
 * character. Reads it as a stream, from the middle when it is told to.
 *
 * @throws TABLE_INVALID for a header that cannot be used, COLUMN_UNKNOWN; both are final
 */
export async function* readTable(
  bodies: Bodies,
  body: string,
  options: TableOptions = {},
): AsyncGenerator<TableItem> {
  const { from, column } = options
  const lines = readLines(bodies.read(body, { start: from?.byte ?? 0 }), from)
  try {
    const opened = from ? { format: from.format } : await readHead(lines)
    if (!opened) return
    if (opened.format.kind === 'csv') {
      assertColumn(column, opened.format.columns)
      yield* csvItems(lines, opened.format)
    } else {
      if (opened.first) yield* ndjsonRows([opened.first])
      yield* ndjsonRows(lines)
    }
  } finally {
    await lines.return(undefined)
  }
}

/**
 * The rows of CSV with a header line, for a job that reads it whole: each by its columns. Lines that are no rows are
 * left out; `readTable` tells which they are, and goes on from the middle.
 *
 * @throws TABLE_INVALID for a header that cannot be used, or when it is NDJSON
 */
export async function* csvRows(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<Record<string, string>> {
  const lines = readLines(bytes)
  try {
    const opened = await readHead(lines)
    if (!opened) return
    if (opened.format.kind !== 'csv') throw TABLE_INVALID({ reason: 'it is NDJSON, not CSV' })
    for await (const { data } of csvItems(lines, opened.format)) {
      if (data) yield data as Record<string, string>
    }
  } finally {
    await lines.return(undefined)
  }
}

type Lines = AsyncGenerator<Line, void>
type CsvFormat = Extract<TableFormat, { kind: 'csv' }>

/** Tells the format by the first line that is not blank. Of CSV that is the header; of NDJSON it is a row. */
async function readHead(lines: Lines): Promise<{ format: TableFormat; first?: Line } | undefined> {
  for (let next = await lines.next(); !next.done; next = await lines.next()) {
    const { fault, ...line } = next.value
    const text = withoutMark(line.text)
    if (fault !== undefined) throw TABLE_INVALID({ reason: `line ${line.number}: ${fault}` })
    if (text.trim() === '') continue
    if (text.trimStart().startsWith('{')) return { format: { kind: 'ndjson' }, first: { ...line, text } }
    return { format: headerOf({ ...line, text }) }
  }
  return undefined
}

function headerOf({ text, number }: Line): CsvFormat {
  const delimiter = delimiterOf(text)
  const columns = createCsvRecord(delimiter).add(text, '')
  const where = `line ${number}, the header,`
  if (columns === 'open') throw TABLE_INVALID({ reason: `${where} has a quote that is not closed` })
  if ('fault' in columns) throw TABLE_INVALID({ reason: `${where} is not CSV: ${columns.fault}` })
  const twice = columns.find((name, index) => columns.indexOf(name) !== index)
  if (twice !== undefined) throw TABLE_INVALID({ reason: `${where} names the column "${twice}" twice` })
  return { kind: 'csv', delimiter, columns }
}

/**
 * When a quote turns out not to be closed, only the line that it stands on is rejected, and the next one is read as
 * a line of its own: one stray quote must not swallow the rest of the file.
 */
async function* csvItems(lines: Lines, format: CsvFormat): AsyncGenerator<TableItem> {
  let ahead: Line[] = []
  const nextLine = async (): Promise<Line | undefined> => {
    if (ahead.length > 0) return ahead.shift()
    const next = await lines.next()
    return next.done ? undefined : next.value
  }
  for (let first = await nextLine(); first; first = await nextLine()) {
    if (first.text.trim() === '' && first.fault === undefined) continue
    const { taken, result } = await takeRecord(first, format.delimiter, nextLine)
    const last = taken.at(-1) as Line
    if ('fault' in result) {
      yield { line: first.number, rejected: result.fault, next: behind(first, format) }
      ahead = [...taken.slice(1), ...ahead]
    } else {
      yield { line: first.number, ...shape(result, format.columns), next: behind(last, format) }
    }
  }
}

async function takeRecord(
  first: Line,
  delimiter: string,
  nextLine: () => Promise<Line | undefined>,
): Promise<{ taken: Line[]; result: string[] | { fault: string } }> {
  const record = createCsvRecord(delimiter)
  const taken: Line[] = []
  let length = 0
  for (let line: Line | undefined = first; line; line = await nextLine()) {
    taken.push(line)
    length += line.text.length
    if (line.fault !== undefined) return { taken, result: { fault: line.fault } }
    const result = record.add(line.text, line.ending)
    if (result !== 'open') return { taken, result }
    if (length > maxLineBytes) break
  }
  return { taken, result: { fault: 'a quote is not closed' } }
}

function shape(fields: string[], columns: string[]): Pick<TableItem, 'data' | 'rejected'> {
  if (fields.length !== columns.length) {
    return { rejected: `it has ${fields.length} fields, and the header ${columns.length}` }
  }
  return { data: Object.fromEntries(columns.map((column, index) => [column, fields[index]])) }
}

async function* ndjsonRows(lines: AsyncIterable<Line> | Iterable<Line>): AsyncGenerator<TableItem> {
  for await (const line of lines) {
    if (line.text.trim() === '' && line.fault === undefined) continue
    yield { line: line.number, ...parseObject(line), next: behind(line, { kind: 'ndjson' }) }
  }
}

function parseObject({ text, fault }: Line): Pick<TableItem, 'data' | 'rejected'> {
  if (fault !== undefined) return { rejected: fault }
  try {
    const value: unknown = JSON.parse(text)
    const isObject = typeof value === 'object' && value !== null && !Array.isArray(value)
    return isObject ? { data: value as Record<string, unknown> } : { rejected: 'it is JSON, but no object' }
  } catch {
    return { rejected: 'it is not JSON' }
  }
}

const behind = (line: Line, format: TableFormat): TablePosition => ({
  byte: line.nextByte,
  line: line.number + 1,
  format,
})

function assertColumn(column: string | undefined, columns: string[]): void {
  if (column === undefined || columns.includes(column)) return
  throw COLUMN_UNKNOWN({ column, columns: columns.join(', ') })
}
