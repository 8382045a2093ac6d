import { messageOf } from '../../core/errors.ts'
import { INPUT_INVALID } from './errors.ts'

/**
 * The text of a value as the `json` columns keep it: what JSON.stringify makes of it, byte for byte, with NUL and
 * lone surrogates as escapes. So no payload can fail the batch that it shares with others.
 *
 * @throws INPUT_INVALID for what JSON cannot carry: a cycle, a BigInt, a number that is not finite (1e400)
 */
export function toJson(value: unknown, what: string): string {
  let text: string | undefined
  try {
    text = JSON.stringify(value)
  } catch (error) {
    throw INPUT_INVALID({ summary: `${what} is not JSON: ${messageOf(error)}` }, { cause: error })
  }
  if (text === undefined) return 'null'
  // Infinity is written as null without a word; only a text that holds a null can hide one.
  if (text.includes('null')) refuseNonFinite(value, what)
  return text
}

/** The same, but nothing stays nothing: an absent column. */
export const toJsonOrNull = (value: unknown, what: string): string | null =>
  value === undefined ? null : toJson(value, what)

function refuseNonFinite(value: unknown, path: string): void {
  if (typeof value === 'number' && !Number.isFinite(value)) {
    const fault = { path, message: 'is a number that JSON cannot carry' }
    throw INPUT_INVALID({ summary: `${path} ${fault.message}` }, { faults: [fault] })
  }
  if (typeof value !== 'object' || value === null) return
  for (const [key, each] of Object.entries(value)) refuseNonFinite(each, `${path}/${key}`)
}
