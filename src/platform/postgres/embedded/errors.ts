import { defineError } from '../../../core/errors.ts'

export const EMBEDDED_POSTGRES_FAILED = defineError(
  'EMBEDDED_POSTGRES_FAILED',
  'The embedded Postgres does not run: {reason}',
  { status: 503, retry: 'never', report: true },
)
