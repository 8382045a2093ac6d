import { defineError } from '../core/errors.ts'

export const JOBS_UNUSABLE = defineError(
  'JOBS_UNUSABLE',
  'The job definitions cannot be loaded: {file}: {reason}',
  { status: 500, retry: 'never', report: true },
)
