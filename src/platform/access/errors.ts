import { defineError } from '../../core/errors.ts'

export const KEY_MISSING = defineError(
  'KEY_MISSING',
  'The request carries no API key. Send the header `Authorization: Bearer KEY`.',
  { status: 401, retry: 'never', report: false },
)

export const KEY_INVALID = defineError(
  'KEY_INVALID',
  'The API key is unknown or revoked. Make one with `baton keys create`.',
  { status: 401, retry: 'never', report: false },
)

export const ROLE_MISSING = defineError(
  'ROLE_MISSING',
  'The API key has the role {role}; this needs the role {needed}.',
  { status: 403, retry: 'never', report: false },
)

export const KEY_NOT_FOUND = defineError(
  'KEY_NOT_FOUND',
  'There is no API key in use that begins with {key}, and none with that id. `baton keys list` shows them.',
  { status: 404, retry: 'never', report: false },
)

export const KEY_AMBIGUOUS = defineError(
  'KEY_AMBIGUOUS',
  '{count} API keys begin with {key}. Name the one you mean by its id.',
  { status: 409, retry: 'never', report: false },
)
