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

/** The fence of docs/protocols/sync.md: raised by the triggers of migration 0050 as SQLSTATE BT001. */
export const SITE_CLOSED = defineError(
  'SITE_CLOSED',
  'This site takes no writes now: it is a replica, or another site is taking over. Nothing was changed. Try again in a few seconds, or at the site that leads.',
  { status: 503, retry: 'after', report: false },
)
