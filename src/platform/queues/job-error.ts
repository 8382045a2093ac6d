import { BatonError, codeOf, messageOf } from '../../core/errors.ts'
import { JOB_FAILED } from './errors.ts'
import type { JobError } from './ledger.ts'

const maxMessage = 2_000
const maxStack = 8_000

/**
 * Whatever was thrown, as the contract shows it. Bounded, since a message may quote a whole response. Never throws
 * itself, also when the fields of what was thrown do.
 */
export function toJobError(thrown: unknown): JobError {
  try {
    return readError(thrown)
  } catch {
    return { code: JOB_FAILED.code, message: 'Something was thrown that cannot be read.' }
  }
}

function readError(thrown: unknown): JobError {
  const error: JobError = {
    code: codeOf(thrown) ?? JOB_FAILED.code,
    message: shorten(thrown instanceof Error ? messageOf(thrown) : textOf(thrown), maxMessage),
  }
  if (thrown instanceof Error && typeof thrown.stack === 'string') {
    error.stack = shorten(thrown.stack, maxStack)
  }
  if (thrown instanceof BatonError && thrown.faults) error.faults = thrown.faults
  return error
}

/** The other way round, for an engine that wants an Error. */
export function toError(shown: JobError): Error {
  const error = new Error(shown.message)
  error.name = shown.code
  if (shown.stack !== undefined) error.stack = shown.stack
  return error
}

function textOf(thrown: unknown): string {
  if (typeof thrown === 'string') return thrown
  try {
    // A thrown object has no toString of use; its JSON at least says what it is.
    const text = typeof thrown === 'object' && thrown !== null ? JSON.stringify(thrown) : String(thrown)
    return `Not an error was thrown, but ${text}.`
  } catch {
    return 'Something was thrown that cannot be shown.'
  }
}

const shorten = (text: string, max: number): string => (text.length <= max ? text : `${text.slice(0, max)}…`)
