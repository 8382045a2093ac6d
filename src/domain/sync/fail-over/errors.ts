import { defineError } from '../../../core/errors.ts'

export const FAIL_OVER_RUNNING = defineError(
  'FAIL_OVER_RUNNING',
  'A fail-over is under way here already. See `baton fail-over status`, or end it with `baton fail-over abort`.',
  { status: 409, retry: 'never', report: false },
)

export const FAIL_OVER_NONE = defineError(
  'FAIL_OVER_NONE',
  'No fail-over is under way here, so there is nothing to abort.',
  { status: 404, retry: 'never', report: false },
)

export const FAIL_OVER_COMMITTED = defineError(
  'FAIL_OVER_COMMITTED',
  'It is too late to abort: {target} was asked to take over, and may have done so. This site stays closed until it knows. When {target} is gone for good, take over here with `baton fail-over hard`.',
  { status: 409, retry: 'never', report: false },
)

export const FAIL_OVER_NOT_HERE = defineError(
  'FAIL_OVER_NOT_HERE',
  'This cannot be asked of this site: {reason}',
  { status: 409, retry: 'never', report: false },
)

export const FAIL_OVER_UNCONFIRMED = defineError(
  'FAIL_OVER_UNCONFIRMED',
  'A hard fail-over gives up what the leader has and this site does not. When the leader is gone, or must not come back as the leader, confirm it by its name: {leader}.',
  { status: 400, retry: 'never', report: false },
)

/** Kept in the row of the fail-over, like the ones below. */
export const FAIL_OVER_REFUSED = defineError(
  'FAIL_OVER_REFUSED',
  'Not ready for a fail-over, and nothing was changed: {problems}',
  { status: 409, retry: 'never', report: false },
)

export const FAIL_OVER_TIMEOUT = defineError(
  'FAIL_OVER_TIMEOUT',
  'The phase {phase} was not over within {ms} ms ({reason}), so the fail-over was given up. This site takes writes again.',
  { status: 503, retry: 'never', report: true },
)

export const FAIL_OVER_DIFFERS = defineError(
  'FAIL_OVER_DIFFERS',
  '{target} does not have the same objects as this site: {buckets} of 4,096 buckets differ at equal positions. The fail-over was given up and this site takes writes again. Run `baton sync verify` and look at what differs.',
  { status: 409, retry: 'never', report: true },
)

export const FAIL_OVER_ABORTED = defineError(
  'FAIL_OVER_ABORTED',
  'It was aborted by {actor}. This site takes writes again.',
  { status: 409, retry: 'never', report: false },
)

export const FAIL_OVER_SUPERSEDED = defineError(
  'FAIL_OVER_SUPERSEDED',
  'Another site has taken over meanwhile: {target} is at epoch {epoch}. This site stays closed.',
  { status: 409, retry: 'never', report: true },
)

/** Somebody else has brought the fail-over on; never leaves this folder. */
export const FAIL_OVER_MOVED_ON = defineError(
  'FAIL_OVER_MOVED_ON',
  'The fail-over is not in the phase {phase} any more: another process has brought it on.',
  { status: 409, retry: 'backoff', report: false },
)
