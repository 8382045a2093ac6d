import { defineError } from '../../core/errors.ts'

export const WORKER_NEVER_READY = defineError(
  'WORKER_NEVER_READY',
  'No child of the worker became ready ({reason}). See the lines above for what each of them said.',
  { status: 500, retry: 'backoff', report: true },
)
