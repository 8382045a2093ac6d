import { defineError } from '../../core/errors.ts'

export const ROUTE_NOT_FOUND = defineError('ROUTE_NOT_FOUND', 'There is nothing at {path}. See /docs.', {
  status: 404,
  retry: 'never',
  report: false,
})

export const METHOD_NOT_ALLOWED = defineError(
  'METHOD_NOT_ALLOWED',
  '{path} does not take {method}; it takes {allowed}.',
  { status: 405, retry: 'never', report: false },
)

export const BODY_MALFORMED = defineError('BODY_MALFORMED', 'The body is not valid JSON: {reason}.', {
  status: 400,
  retry: 'never',
  report: false,
})

export const MEDIA_TYPE_UNSUPPORTED = defineError(
  'MEDIA_TYPE_UNSUPPORTED',
  'The media type {type} is not understood here. Send `Content-Type: application/json`.',
  { status: 415, retry: 'never', report: false },
)

export const REQUEST_MALFORMED = defineError(
  'REQUEST_MALFORMED',
  'The request is not understood: {reason}.',
  { status: 400, retry: 'never', report: false },
)

export const REQUEST_TIMED_OUT = defineError(
  'REQUEST_TIMED_OUT',
  'The request did not arrive within {limitMs} ms. Nothing was changed; send it again.',
  { status: 408, retry: 'backoff', report: false },
)

export const HEADERS_TOO_LARGE = defineError(
  'HEADERS_TOO_LARGE',
  'The headers of the request are larger than {limit} bytes.',
  { status: 431, retry: 'never', report: false },
)

export const IDEMPOTENCY_KEY_REUSED = defineError(
  'IDEMPOTENCY_KEY_REUSED',
  'The Idempotency-Key {key} was used within the last 24 hours for another request. Use a new key for a new request.',
  { status: 409, retry: 'never', report: false },
)

export const OVERLOADED = defineError(
  'OVERLOADED',
  'There is more work than this process can take in ({reason}). Nothing was changed; try again.',
  { status: 503, retry: 'after', report: false },
)

export const INTERNAL = defineError(
  'INTERNAL',
  'Something went wrong inside. The logs have the details under the request id.',
  { status: 500, retry: 'backoff', report: true },
)

export const PORT_UNAVAILABLE = defineError(
  'PORT_UNAVAILABLE',
  'Cannot listen on {host}:{port}: {reason}. Set PORT (or HOST) to another one, or end what is there.',
  { status: 500, retry: 'never', report: true },
)
