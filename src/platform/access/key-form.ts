import { randomBytes } from 'node:crypto'
import { sha256 } from '../../core/digest.ts'

/**
 * The form of a key: `baton_`, 40 random hex digits, 8 hex digits of a checksum. With the checksum a guess or a
 * typing error is refused without a look at the database, and a scanner for leaked secrets can tell a key for sure.
 */
const form = /^baton_([0-9a-f]{40})([0-9a-f]{8})$/

const checksum = (digits: string): string => sha256(`baton key ${digits}`).slice(0, 8)

export function newKey(): string {
  const digits = randomBytes(20).toString('hex')
  return `baton_${digits}${checksum(digits)}`
}

export function isKey(text: string): boolean {
  const match = form.exec(text)
  return match !== null && checksum(match[1] ?? '') === match[2]
}

/** What may be shown of a key: 24 of its 160 random bits. */
export const prefixOf = (key: string): string => key.slice(0, 12)
