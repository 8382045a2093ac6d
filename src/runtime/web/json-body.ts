import { isUtf8 } from 'node:buffer'
import type { Fault } from '../../core/errors.ts'
import { INPUT_INVALID } from '../../platform/queues/errors.ts'
import { BODY_MALFORMED } from './errors.ts'

/** Deeper than any payload of sense, and far from what overflows a stack here, in a worker or in Postgres. */
const deepest = 64
const mostFaults = 100

/**
 * Reads a JSON body. Refuses what JSON.parse would silently change (numbers that a double cannot hold, bytes that
 * are no UTF-8) and what would hurt later (nesting bombs, `__proto__`). Of a key that stands twice the last counts.
 *
 * @throws BODY_MALFORMED
 * @throws INPUT_INVALID with the path of every value that is refused
 */
export function readJson(bytes: Buffer): unknown {
  if (bytes.length === 0) throw BODY_MALFORMED({ reason: 'it is empty' })
  if (!isUtf8(bytes)) throw BODY_MALFORMED({ reason: 'it is not UTF-8' })
  const whole = bytes.toString('utf8')
  const text = whole.charCodeAt(0) === 0xfe_ff ? whole.slice(1) : whole
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw BODY_MALFORMED({ reason: syntaxReason(error) }, { cause: error })
  }
  let inspection = inspected(value)
  if (inspection.rounded && inspection.faults.length === 0) inspection = inspected(markUnheld(text))
  if (inspection.faults.length > 0) {
    throw INPUT_INVALID({ summary: 'it holds values that cannot be taken' }, { faults: inspection.faults })
  }
  return value
}

/** Where it stands, without the excerpt that V8 adds: a log line must not show a piece of a payload. */
function syntaxReason(error: unknown): string {
  const position = /at position (\d+)/.exec(String(error))?.[1]
  if (position !== undefined) return `there is an error at character ${position}`
  return /Unexpected end/.test(String(error)) ? 'it ends too early' : 'there is an error in it'
}

interface Inspection {
  faults: Fault[]
  /** An integer was met that a double may have rounded. */
  rounded: boolean
}

function inspected(value: unknown): Inspection {
  const inspection: Inspection = { faults: [], rounded: false }
  inspect(value, [], inspection)
  return inspection
}

function inspect(value: unknown, path: (string | number)[], into: Inspection): void {
  if (typeof value === 'number') {
    if (Number.isSafeInteger(value)) return
    if (!Number.isFinite(value)) refuse(into, path, 'must be a number that a double can hold')
    else if (Number.isInteger(value)) into.rounded = true
    return
  }
  if (value === unheld) return refuse(into, path, 'must be sent as a string: a double cannot hold it')
  if (typeof value !== 'object' || value === null) return
  if (path.length >= deepest) return refuse(into, path, `must not be nested deeper than ${deepest} levels`)
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index++) {
      path.push(index)
      inspect(value[index], path, into)
      path.pop()
    }
    return
  }
  for (const key in value) {
    path.push(key)
    // As a key of its own it is harmless here, but not to whoever copies the payload key by key.
    if (key === '__proto__') refuse(into, path, 'must not be used as a key')
    inspect((value as Record<string, unknown>)[key], path, into)
    path.pop()
  }
}

function refuse(into: Inspection, path: (string | number)[], message: string): void {
  if (into.faults.length < mostFaults) into.faults.push({ path: pointer(path), message })
}

/** A JSON pointer (RFC 6901). */
export const pointer = (path: readonly (string | number)[]): string =>
  path.map((part) => `/${String(part).replaceAll('~', '~0').replaceAll('/', '~1')}`).join('')

/** Stands where an integer was that a double cannot hold. */
const unheld: unique symbol = Symbol('unheld')

/** Reads the text again, slowly, since only the source of a number tells whether it was rounded. */
function markUnheld(text: string): unknown {
  // The third argument is of ES2025, which the type of JSON.parse does not know yet.
  const mark = (_key: string, value: unknown, context?: { source?: string }): unknown => {
    const source = context?.source
    if (typeof value !== 'number' || source === undefined || !/^-?\d+$/.test(source)) return value
    return BigInt(source) === BigInt(value) ? value : unheld
  }
  return JSON.parse(text, mark)
}
