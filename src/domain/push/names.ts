import type { Fault } from '../../core/errors.ts'

/** Longest id of a device, a user or a group, and longest topic, in characters. */
export const maxNameLength = 200

/**
 * What is wrong with an id that comes from outside, or undefined. Any characters but controls and lone
 * surrogates: those cannot be stored, or cannot be told apart in a log.
 */
export function nameFault(path: string, name: string): Fault | undefined {
  if (name === '') return { path, message: 'must not be empty' }
  if (name.length > maxNameLength) {
    return { path, message: `has ${name.length} characters; at most ${maxNameLength} are taken` }
  }
  if (/\p{Cc}/u.test(name) || !name.isWellFormed()) {
    return { path, message: 'must not contain control characters' }
  }
  // Nothing that shortens paths would let it through.
  if (name === '.' || name === '..') return { path, message: 'must not be . or ..' }
  return undefined
}
