import { defineError } from '../../core/errors.ts'

export const JOB_UNKNOWN = defineError('JOB_UNKNOWN', 'There is no job named {name}.', {
  status: 404,
  retry: 'never',
  report: false,
})

export const JOB_NOT_FOUND = defineError('JOB_NOT_FOUND', 'There is no job {id}.', {
  status: 404,
  retry: 'never',
  report: false,
})

export const JOB_DUPLICATE_NAME = defineError(
  'JOB_DUPLICATE_NAME',
  'Two jobs have the name {name}. Rename one of them: deliveries could not tell them apart.',
  { status: 500, retry: 'never', report: true },
)

export const JOB_NOT_FINISHED = defineError(
  'JOB_NOT_FINISHED',
  'The job {id} is {state}; only a finished one can be retried.',
  { status: 409, retry: 'never', report: false },
)

export const JOB_FINISHED = defineError('JOB_FINISHED', 'The job {id} is {state} already.', {
  status: 409,
  retry: 'never',
  report: false,
})

export const JOB_KEY_TAKEN = defineError(
  'JOB_KEY_TAKEN',
  'The copy of the job {id} cannot be written: another unfinished job {name} has its dedupe key here. It is tried again.',
  { status: 409, retry: 'backoff', report: false },
)

export const JOB_TIMED_OUT = defineError('JOB_TIMED_OUT', 'The job ran longer than {timeoutMs} ms.', {
  status: 500,
  retry: 'backoff',
  report: false,
})

export const JOB_INTERRUPTED = defineError(
  'JOB_INTERRUPTED',
  'The job was interrupted ({reason}) and goes back to the queue; no attempt is used.',
  { status: 503, retry: 'backoff', report: false },
)

export const JOB_POISONOUS = defineError(
  'JOB_POISONOUS',
  'The job took its process down {crashes} times and was set aside. Retry it by hand once the cause is known.',
  { status: 500, retry: 'never', report: true },
)

export const INPUT_INVALID = defineError('INPUT_INVALID', 'The input does not fit: {summary}.', {
  status: 400,
  retry: 'never',
  report: false,
})

export const QUEUE_UNAVAILABLE = defineError('QUEUE_UNAVAILABLE', 'The queue cannot be reached: {reason}.', {
  status: 503,
  retry: 'backoff',
  report: true,
})

export const JOB_DEFINITION_INVALID = defineError(
  'JOB_DEFINITION_INVALID',
  'The job {name} is not well defined: {faults}.',
  { status: 500, retry: 'never', report: true },
)

export const JOB_FAILED = defineError('JOB_FAILED', 'The job failed: {reason}.', {
  status: 500,
  retry: 'backoff',
  report: false,
})

export const JOB_CANCELLED = defineError('JOB_CANCELLED', 'The job was cancelled: {reason}.', {
  status: 409,
  retry: 'never',
  report: false,
})

export const JOB_LOST = defineError(
  'JOB_LOST',
  'The run of the job {id} was taken over by another; what this one still does is not recorded.',
  { status: 409, retry: 'never', report: false },
)

export const JOB_RESULT_INVALID = defineError(
  'JOB_RESULT_INVALID',
  'The result cannot be kept: {reason}. Return little JSON; keep the rest as a body and return its id.',
  { status: 500, retry: 'never', report: false },
)

export const JOB_OUTCOME_INVALID = defineError(
  'JOB_OUTCOME_INVALID',
  'The handler returned {what}. It may return nothing, done(…), snooze(ms) or cancel(reason).',
  { status: 500, retry: 'never', report: false },
)

export const JOB_CHECKPOINT_INVALID = defineError(
  'JOB_CHECKPOINT_INVALID',
  'The checkpoint cannot be used: {reason}.',
  { status: 500, retry: 'backoff', report: false },
)

export const JOB_CONTEXT_MISUSED = defineError('JOB_CONTEXT_MISUSED', 'The handler {what}.', {
  status: 500,
  retry: 'never',
  report: false,
})

export const INTAKE_OVERLOADED = defineError(
  'INTAKE_OVERLOADED',
  '{pending} jobs wait to be committed already. Nothing was changed; try again a little later.',
  { status: 503, retry: 'after', report: true },
)

export const PAYLOAD_UNAVAILABLE = defineError(
  'PAYLOAD_UNAVAILABLE',
  'The payload lies in the stores of bodies and cannot be used now: {reason}. The job waits; no attempt is used.',
  { status: 503, retry: 'after', report: true },
)

export const PAYLOAD_LOST = defineError(
  'PAYLOAD_LOST',
  'The payload lay in the stores of bodies and is lost: {reason}. Bring a store that has it back, then retry the job by hand.',
  { status: 500, retry: 'never', report: true },
)
