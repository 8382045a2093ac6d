import type { FastifyRequest } from 'fastify'
import { INPUT_INVALID } from '../../platform/queues/errors.ts'

/** What a client may send as Idempotency-Key: it stands in an index, and in a line of a problem. */
const form = /^[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?$/

/** @throws INPUT_INVALID for a key that is no plain text of sane length */
export function idempotencyKeyOf(request: FastifyRequest): string {
  const key = request.headers['idempotency-key']
  if (typeof key === 'string' && form.test(key)) return key
  const fault = { path: '/headers/idempotency-key', message: 'must be 1 to 255 printable characters' }
  throw INPUT_INVALID({ summary: `Idempotency-Key ${fault.message}` }, { faults: [fault] })
}
