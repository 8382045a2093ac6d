import { defineError } from '../../core/errors.ts'

export const DATABASE_UNAVAILABLE = defineError(
  'DATABASE_UNAVAILABLE',
  'Postgres cannot be reached: {reason}. Nothing was changed; try again.',
  { status: 503, retry: 'backoff', report: true },
)

export const DATABASE_OVERLOADED = defineError(
  'DATABASE_OVERLOADED',
  'Postgres has no connection free: {reason}. Nothing was changed; try again.',
  { status: 503, retry: 'after', report: true },
)

export const DATABASE_NOT_MIGRATED = defineError(
  'DATABASE_NOT_MIGRATED',
  'The database lacks migrations ({pending}). Run `baton release` against it.',
  { status: 503, retry: 'never', report: true },
)
