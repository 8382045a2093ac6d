import { parse } from 'csv-parse'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { csvRows, readTable, type TableItem, type TablePosition } from '../../../jobs/tables/table.ts'
import type { Bodies } from '../../../src/domain/bodies/bodies.ts'

/** A body of these bytes, handed out in chunks of that many: none of the edges between them may matter. */
function bodyOf(bytes: Buffer, chunkBytes = 7): Pick<Bodies, 'read'> {
  return {
    read: async function* (_id, { start = 0 } = {}) {
      for (let at = start; at < bytes.length; at += chunkBytes) yield bytes.subarray(at, at + chunkBytes)
    },
  }
}

async function itemsOf(
  text: string | Buffer,
  options: { from?: TablePosition; column?: string; chunkBytes?: number } = {},
): Promise<TableItem[]> {
  const { chunkBytes, ...rest } = options
  const items: TableItem[] = []
  const body = bodyOf(Buffer.from(text), chunkBytes) as Bodies
  for await (const item of readTable(body, 'id', rest)) items.push(item)
  return items
}

const rowsOf = async (text: string | Buffer): Promise<unknown[]> =>
  (await itemsOf(text)).map(({ line, data, rejected }) => [line, data ?? rejected])

describe('a table of CSV', () => {
  it('has a row for each line behind the header', async () => {
    expect(await rowsOf('a,b\n1,2\n3,4')).toEqual([
      [2, { a: '1', b: '2' }],
      [3, { a: '3', b: '4' }],
    ])
  })

  it('may have a byte order mark, CRLF, blank lines, quotes and line breaks within them', async () => {
    const text = '\uFEFFname,note\r\n\r\n"Ann, B","says ""hi"""\r\nBob,"two\r\nlines"\r\nC,\r\n'
    expect(await rowsOf(text)).toEqual([
      [3, { name: 'Ann, B', note: 'says "hi"' }],
      [4, { name: 'Bob', note: 'two\r\nlines' }],
      [6, { name: 'C', note: '' }],
    ])
  })

  it.each([
    ['semicolons', 'a;b\n1,5;2', { a: '1,5', b: '2' }],
    ['tabs', 'a\tb\n1\t2', { a: '1', b: '2' }],
    ['semicolons, and a comma within a quoted name', '"a,b,c";d\n1;2', { 'a,b,c': '1', d: '2' }],
  ])('may have %s', async (_what, text, row) => {
    expect((await itemsOf(text)).map(({ data }) => data)).toEqual([row])
  })

  it('rejects what is no row, with its line, and goes on', async () => {
    const text = Buffer.concat([
      Buffer.from('a,b\n1\n2,2\n"x"y,1\n5" pipe,3\n1,2,3\n'),
      Buffer.from([0xff, 0x2c, 0x31, 0x0a]),
      Buffer.from('last,row\n'),
    ])
    expect(await rowsOf(text)).toEqual([
      [2, 'it has 1 fields, and the header 2'],
      [3, { a: '2', b: '2' }],
      [4, 'there is text behind a closing quote'],
      [5, { a: '5" pipe', b: '3' }],
      [6, 'it has 3 fields, and the header 2'],
      [7, 'the line is not UTF-8'],
      [8, { a: 'last', b: 'row' }],
    ])
  })

  it('loses one line, not the rest of the file, to a quote that is not closed', async () => {
    expect(await rowsOf('a,b\n1,"open\n2,2\n3,3\n')).toEqual([
      [2, 'a quote is not closed'],
      [3, { a: '2', b: '2' }],
      [4, { a: '3', b: '3' }],
    ])
    expect(await rowsOf('a,b\n1,"open\n2,2\n3,"q"\n')).toEqual([
      [2, 'there is text behind a closing quote'],
      [3, { a: '2', b: '2' }],
      [4, { a: '3', b: 'q' }],
    ])
  })

  it('passes over a line without end in bounded memory', async () => {
    const items = await itemsOf(`a,b\n${'x'.repeat(3_000_000)}\n1,2\n`, { chunkBytes: 65_536 })
    expect(items.map(({ line, data, rejected }) => [line, data ?? rejected])).toEqual([
      [2, 'the line has 3000000 bytes, more than 1048576'],
      [3, { a: '1', b: '2' }],
    ])
  })

  it('has no rows when there is nothing, or a header only', async () => {
    expect(await itemsOf('')).toEqual([])
    expect(await itemsOf('\n\n')).toEqual([])
    expect(await itemsOf('a,b\n')).toEqual([])
  })

  it.each([
    ['a,b,a\n1,2,3', /names the column "a" twice/],
    ['"a,b\n1,2', /quote that is not closed/],
    [Buffer.from([0xff, 0xfe, 0x61, 0x00]), /not UTF-8/],
  ])('is refused for good when its header cannot be used: %j', async (text, reason) => {
    await expect(itemsOf(text as string)).rejects.toMatchObject({
      code: 'TABLE_INVALID',
      message: expect.stringMatching(reason as RegExp),
      traits: { retry: 'never' },
    })
  })

  it('does not let a column named __proto__ do anything', async () => {
    const [row] = await itemsOf('__proto__,b\n{},1\n')
    expect(JSON.stringify(row?.data)).toBe('{"__proto__":"{}","b":"1"}')
  })

  it('says at once that it lacks the column which is asked for', async () => {
    await expect(itemsOf('a,b\n', { column: 'c' })).rejects.toMatchObject({
      code: 'COLUMN_UNKNOWN',
      message: 'The table has no column "c". It has: a, b.',
    })
  })

  const cell = fc.oneof(
    fc.string({ maxLength: 8 }),
    fc.string({ unit: fc.constantFrom('"', ',', '\n', '\r\n', ' ', 'é', '😀', 'a', ';'), maxLength: 8 }),
  )
  const table = fc.record({
    rows: fc.array(fc.tuple(cell, cell, cell), { maxLength: 12 }),
    ending: fc.constantFrom('\n', '\r\n'),
    chunkBytes: fc.integer({ min: 1, max: 40 }),
  })
  const quoted = (text: string): string => `"${text.replaceAll('"', '""')}"`
  const textOf = (rows: string[][], ending: string): string =>
    ['x,y,z', ...rows.map((row) => row.map(quoted).join(','))].join(ending)

  it('reads what another parser reads', async () => {
    await fc.assert(
      fc.asyncProperty(table, async ({ rows, ending, chunkBytes }) => {
        const text = textOf(rows, ending)
        const expected = await parse(text, { columns: true }).toArray()
        expect((await itemsOf(text, { chunkBytes })).map(({ data }) => data)).toEqual(expected)
      }),
      { numRuns: 300 },
    )
  })

  it('goes on behind any row exactly where it was, also when rows are broken', async () => {
    const broken = fc.record({
      rows: fc.array(fc.string({ unit: fc.constantFrom('"', ',', '\n', 'a', 'b'), maxLength: 10 })),
    })
    await fc.assert(
      fc.asyncProperty(broken, fc.integer({ min: 1, max: 9 }), async ({ rows }, chunkBytes) => {
        const text = ['x,y', ...rows].join('\n')
        const whole = await itemsOf(text, { chunkBytes })
        for (const [index, item] of whole.entries()) {
          const rest = await itemsOf(text, { from: JSON.parse(JSON.stringify(item.next)), chunkBytes })
          expect(rest).toEqual(whole.slice(index + 1))
        }
      }),
      { numRuns: 200 },
    )
  })
})

describe('a table of NDJSON', () => {
  it('has a row for each object, and rejects the rest with its line', async () => {
    const text = '\uFEFF {"a":1}\n\n{"a":2,"b":[1]}\r\n[1]\nnull\n{"a":\n{"a":3}'
    expect(await rowsOf(text)).toEqual([
      [1, { a: 1 }],
      [3, { a: 2, b: [1] }],
      [4, 'it is JSON, but no object'],
      [5, 'it is JSON, but no object'],
      [6, 'it is not JSON'],
      [7, { a: 3 }],
    ])
  })

  it('goes on behind any row', async () => {
    const text = '{"a":1}\n{"a":2}\nx\n{"a":3}\n'
    const whole = await itemsOf(text)
    for (const [index, item] of whole.entries()) {
      expect(await itemsOf(text, { from: item.next })).toEqual(whole.slice(index + 1))
    }
  })
})

describe('csvRows', () => {
  const rows = async (text: string): Promise<unknown[]> => {
    const all: unknown[] = []
    for await (const row of csvRows(bodyOf(Buffer.from(text)).read('id'))) all.push(row)
    return all
  }

  it('gives each row by its columns, and leaves out what is none', async () => {
    expect(await rows('name;country\nWien;AT\nhalf\n"Graz; Land";AT\n')).toEqual([
      { name: 'Wien', country: 'AT' },
      { name: 'Graz; Land', country: 'AT' },
    ])
    expect(await rows('')).toEqual([])
  })

  it('refuses what is no CSV', async () => {
    await expect(rows('{"name":"Wien"}\n')).rejects.toMatchObject({ code: 'TABLE_INVALID' })
  })
})
