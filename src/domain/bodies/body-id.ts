import { BODY_ID_INVALID } from './errors.ts'

const sha256Hex = /^[0-9a-f]{64}$/

/** Whether a text has the form of a body's id: the sha256 of its bytes, 64 lower-case hex digits. */
export const isBodyId = (text: string): boolean => sha256Hex.test(text)

/**
 * To be called before an id becomes part of a path or an address.
 *
 * @throws BODY_ID_INVALID
 */
export function assertBodyId(text: string): void {
  if (typeof text !== 'string' || !isBodyId(text)) throw BODY_ID_INVALID()
}
