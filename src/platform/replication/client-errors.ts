import { defineError } from '../../core/errors.ts'

export const SITE_UNREACHABLE = defineError(
  'SITE_UNREACHABLE',
  'The site at {site} cannot be reached: {reason}. Whether it did what it was asked is not known; it is asked again.',
  { status: 502, retry: 'backoff', report: false },
)

export const SITE_ANSWER_INVALID = defineError(
  'SITE_ANSWER_INVALID',
  'What answers at {site} does not speak as a site of Baton: {reason}. See whether the URL is right.',
  { status: 502, retry: 'backoff', report: true },
)

export const SITE_REFUSED = defineError(
  'SITE_REFUSED',
  'The site at {site} refuses it with {status} {code}: {reason}',
  { status: 502, retry: 'backoff', report: false },
)
