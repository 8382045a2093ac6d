import { STATUS_CODES } from 'node:http'
import { BatonError, codeOf, messageOf } from '../../core/errors.ts'
import { BODY_CORRUPT, BODY_TIMEOUT, BODY_TOO_LARGE, BODY_UNAVAILABLE } from '../../domain/bodies/errors.ts'
import { databaseError } from '../../platform/postgres/postgres.ts'
import { BODY_MALFORMED, INTERNAL, MEDIA_TYPE_UNSUPPORTED, REQUEST_MALFORMED } from './errors.ts'

export const problemType = 'application/problem+json; charset=utf-8'

/** Instead of texts that name a store: its path or host is for the log and for operators, not for who asks for a body. */
const detailsForClients: Record<string, string> = {
  [BODY_CORRUPT.code]:
    'No sound copy of the body can be read. It is not sent. The bad copies are kept in quarantine; the log has the details.',
  [BODY_UNAVAILABLE.code]:
    'A store of bodies cannot do it now. Nothing was changed; try again. The log has the details.',
  [BODY_TIMEOUT.code]:
    'A store of bodies did not answer in time. Whether it has the body is not known; try again.',
}

/** An error as RFC 9457 shows it. `type` leads to the row of the code on the page of documents. */
export function problemOf(error: BatonError, requestId?: string): string {
  return JSON.stringify({
    type: `/docs#${error.code}`,
    title: STATUS_CODES[error.traits.status] ?? 'Error',
    status: error.traits.status,
    code: error.code,
    detail: detailsForClients[error.code] ?? error.message,
    ...(error.faults ? { errors: error.faults } : {}),
    ...(requestId === undefined ? {} : { requestId }),
  })
}

/** Headers that an error brings along, besides its media type. */
export function problemHeaders(error: BatonError): Record<string, string> {
  const headers: Record<string, string> = { 'cache-control': 'no-store' }
  if (error.traits.status === 401) headers['www-authenticate'] = 'Bearer realm="baton"'
  const retryAfterMs = error.retryAfterMs ?? (error.traits.status === 503 ? 1_000 : undefined)
  if (retryAfterMs !== undefined)
    headers['retry-after'] = String(Math.max(1, Math.ceil(retryAfterMs / 1_000)))
  return headers
}

/** Names what any error that was thrown while answering means to the client. Nothing of an unknown one is told. */
export function toBatonError(thrown: unknown, bodyLimit: number): BatonError {
  const error = databaseError(thrown)
  if (error instanceof BatonError) return error
  const known = frameworkErrors[codeOf(error) ?? '']
  if (known) return known(bodyLimit)
  return isClientFault(error)
    ? REQUEST_MALFORMED({ reason: messageOf(error) })
    : INTERNAL({}, { cause: error })
}

const frameworkErrors: Record<string, (bodyLimit: number) => BatonError> = {
  FST_ERR_CTP_BODY_TOO_LARGE: (maxBytes) => BODY_TOO_LARGE({ maxBytes }),
  FST_ERR_CTP_INVALID_MEDIA_TYPE: () => MEDIA_TYPE_UNSUPPORTED({ type: 'of the request' }),
  FST_ERR_CTP_INVALID_CONTENT_TYPE: () => MEDIA_TYPE_UNSUPPORTED({ type: 'of the request' }),
  FST_ERR_CTP_EMPTY_JSON_BODY: () => BODY_MALFORMED({ reason: 'it is empty' }),
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: () =>
    REQUEST_MALFORMED({ reason: 'Content-Length does not fit the body' }),
}

/** Fastify's own refusals (a bad URL, a header twice) carry a 4xx status. */
const isClientFault = (error: unknown): boolean =>
  codeOf(error)?.startsWith('FST_ERR_') === true &&
  typeof (error as { statusCode?: unknown }).statusCode === 'number' &&
  (error as { statusCode: number }).statusCode >= 400 &&
  (error as { statusCode: number }).statusCode < 500
