/** Takes the lines of one record: a quoted field may hold line breaks. */
export interface CsvRecord {
  /** @returns the fields once the record is whole, `open` while a quote is, or why it is no record */
  add(line: string, ending: string): string[] | 'open' | { fault: string }
}

/**
 * The form of RFC 4180. A quote opens a field only at its beginning; elsewhere it is an ordinary character, as
 * spreadsheets write it in `5" pipe`.
 */
export function createCsvRecord(delimiter: string): CsvRecord {
  const fields: string[] = []
  let quoted: string | undefined

  /** Reads a quoted field from `at`, which is behind its opening quote; the place behind the closing one, or -1. */
  const closeQuote = (line: string, ending: string, at: number): number => {
    for (let from = at; ; ) {
      const quote = line.indexOf('"', from)
      if (quote === -1) {
        quoted = `${quoted ?? ''}${line.slice(from)}${ending}`
        return -1
      }
      quoted = (quoted ?? '') + line.slice(from, quote)
      if (line[quote + 1] !== '"') return quote + 1
      quoted += '"'
      from = quote + 2
    }
  }

  return {
    add: (line, ending) => {
      for (let at = 0; ; ) {
        if (quoted !== undefined || line[at] === '"') {
          at = closeQuote(line, ending, quoted === undefined ? at + 1 : at)
          if (at === -1) return 'open'
          fields.push(quoted ?? '')
          quoted = undefined
          if (at < line.length && line[at] !== delimiter)
            return { fault: 'there is text behind a closing quote' }
        } else {
          const end = line.indexOf(delimiter, at)
          fields.push(line.slice(at, end === -1 ? undefined : end))
          at = end === -1 ? line.length : end
        }
        if (at >= line.length) return fields
        at++
      }
    },
  }
}

/** The one of comma, semicolon and tab that the header line has most of. */
export function delimiterOf(header: string): string {
  const bare = header.replaceAll(/"(?:[^"]|"")*"/g, '')
  const counted = [',', ';', '\t'].map((each) => ({ each, count: bare.split(each).length }))
  return counted.reduce((best, next) => (next.count > best.count ? next : best)).each
}
