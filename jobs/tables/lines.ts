import { isUtf8 } from 'node:buffer'

/** A line of a file, and where the next one begins. */
export interface Line {
  text: string
  /** How it ended; the last line of a file may end with nothing. */
  ending: '\n' | '\r\n' | ''
  /** From 1. */
  number: number
  /** First byte of the next line, counted from the beginning of the file. */
  nextByte: number
  /** Why the text is not to be believed: it is too long (then it is cut), or not UTF-8. */
  fault?: string
}

/** A longer line has no place in memory; it is passed over and reported. */
export const maxLineBytes = 1_048_576

/** Splits bytes at line feeds; the carriage return before one is no part of the line, nor is a byte order mark. */
export async function* readLines(
  source: AsyncIterable<Uint8Array>,
  from: { byte: number; line: number } = { byte: 0, line: 1 },
): AsyncGenerator<Line> {
  let { byte, line } = from
  let parts: Buffer[] = []
  let length = 0

  const take = (isEnded: boolean): Line => {
    const bytes = Buffer.concat(parts)
    const bytesLong = length
    parts = []
    length = 0
    byte += bytesLong + (isEnded ? 1 : 0)
    return { ...decode(bytes, bytesLong, isEnded), number: line++, nextByte: byte }
  }
  const keep = (part: Buffer): void => {
    if (length < maxLineBytes) parts.push(part.subarray(0, maxLineBytes - length))
    length += part.length
  }

  for await (const chunk of source) {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length)
    let start = 0
    for (let end = bytes.indexOf(10); end !== -1; end = bytes.indexOf(10, start)) {
      keep(bytes.subarray(start, end))
      yield take(true)
      start = end + 1
    }
    keep(bytes.subarray(start))
  }
  if (length > 0) yield take(false)
}

function decode(bytes: Buffer, bytesLong: number, isEnded: boolean): Pick<Line, 'text' | 'ending' | 'fault'> {
  const whole = bytes.toString('utf8')
  const text = isEnded && whole.endsWith('\r') ? whole.slice(0, -1) : whole
  const ending = !isEnded ? '' : text === whole ? '\n' : '\r\n'
  if (bytesLong > maxLineBytes) {
    return { text: '', ending, fault: `the line has ${bytesLong} bytes, more than ${maxLineBytes}` }
  }
  return isUtf8(bytes) ? { text, ending } : { text, ending, fault: 'the line is not UTF-8' }
}

const byteOrderMark = '\uFEFF'
export const withoutMark = (text: string): string => (text.startsWith(byteOrderMark) ? text.slice(1) : text)
