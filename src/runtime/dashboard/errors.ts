import { defineError } from '../../core/errors.ts'

export const LOG_IN_NEEDED = defineError('LOG_IN_NEEDED', 'Log in with an API key to see this page.', {
  status: 401,
  retry: 'never',
  report: false,
})

export const PAGE_NOT_FOUND = defineError('PAGE_NOT_FOUND', 'The dashboard has no such page.', {
  status: 404,
  retry: 'never',
  report: false,
})

export const LOG_IN_THROTTLED = defineError(
  'LOG_IN_THROTTLED',
  'Too many attempts to log in came from your address. Try again in {seconds} s.',
  { status: 429, retry: 'after', report: false },
)

export const FORM_NOT_OURS = defineError(
  'FORM_NOT_OURS',
  'The form is too old, or was not sent from this dashboard. Nothing was changed. Go back, load the page again and send it once more.',
  { status: 403, retry: 'never', report: false },
)

export const QUEUES_READ_ONLY = defineError(
  'QUEUES_READ_ONLY',
  'The view of the queue engine changes nothing. Retry and cancel jobs on the pages Jobs and Failed.',
  { status: 405, retry: 'never', report: false },
)
