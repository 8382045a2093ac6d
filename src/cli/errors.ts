import { defineError } from '../core/errors.ts'

export const JOBS_UNUSABLE = defineError(
  'JOBS_UNUSABLE',
  'The job definitions cannot be loaded: {file}: {reason}',
  { status: 500, retry: 'never', report: true },
)

export const CONFIG_DATABASE_MISSING = defineError(
  'CONFIG_DATABASE_MISSING',
  'DATABASE_URL is not set. `baton dev` brings a Postgres of its own; every other process needs to be told of one.',
  { status: 500, retry: 'never', report: true },
)
