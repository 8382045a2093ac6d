import { defineError } from '../../core/errors.ts'

/** The only one of these that may be remembered: every store that could be reached said so itself. */
export const BODY_NOT_FOUND = defineError('BODY_NOT_FOUND', 'There is no body {id}.', {
  status: 404,
  retry: 'never',
  report: false,
})

export const BODY_ID_INVALID = defineError(
  'BODY_ID_INVALID',
  'What was given as the id of a body is not a sha256 of 64 lower-case hex digits.',
  { status: 400, retry: 'never', report: false },
)

export const BODY_RANGE_INVALID = defineError(
  'BODY_RANGE_INVALID',
  'The range lies outside of the body {id}, which has {size} bytes.',
  { status: 416, retry: 'never', report: false },
)

export const BODY_TOO_LARGE = defineError(
  'BODY_TOO_LARGE',
  'The body is larger than {maxBytes} bytes, the most that is taken. Nothing was kept.',
  { status: 413, retry: 'never', report: false },
)

export const BODY_INCOMPLETE = defineError(
  'BODY_INCOMPLETE',
  'The body ended before all of it had come: {reason}. Nothing was kept; send it again.',
  { status: 400, retry: 'backoff', report: false },
)

export const BODY_UNAVAILABLE = defineError(
  'BODY_UNAVAILABLE',
  'The store {store} cannot do it now: {reason}. Nothing was changed; try again.',
  { status: 503, retry: 'backoff', report: true },
)

export const BODY_TIMEOUT = defineError(
  'BODY_TIMEOUT',
  'The store {store} did not answer within {timeoutMs} ms. Whether it has the body is not known; try again.',
  { status: 503, retry: 'backoff', report: true },
)

export const BODY_CORRUPT = defineError(
  'BODY_CORRUPT',
  'No sound copy of the body {id} can be read: {reason}. It is not sent. The bad copies are kept in quarantine.',
  { status: 503, retry: 'backoff', report: true },
)

export const BODY_OVERLOADED = defineError(
  'BODY_OVERLOADED',
  'Too many bodies are being sent and received ({waiting} wait already). Nothing was changed; try again.',
  { status: 503, retry: 'after', report: true },
)

export const BODY_STORE_INVALID = defineError(
  'BODY_STORE_INVALID',
  'The store of bodies {url} cannot be used: {reason}.',
  { status: 500, retry: 'never', report: true },
)
