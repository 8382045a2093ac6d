import { defineError } from '../../core/errors.ts'

export const STATE_NOT_FOUND = defineError('STATE_NOT_FOUND', 'The device {device} has no state {key}.', {
  status: 404,
  retry: 'never',
  report: false,
})

export const STATE_CHANGED = defineError(
  'STATE_CHANGED',
  'The state {key} of the device {device} is not what If-Match named. Read it again and decide anew.',
  { status: 412, retry: 'never', report: false },
)

export const STATE_GATED = defineError(
  'STATE_GATED',
  'The store of states is closed for a moment ({reason}). Nothing was read or written; come back later.',
  { status: 503, retry: 'after', report: false },
)

export const STATE_URL_INVALID = defineError(
  'STATE_URL_INVALID',
  'The store {url} cannot be used: {reason}. Give file:/dir/, zpush+postgres://host/database or postgres://host/database.',
  { status: 400, retry: 'never', report: false },
)

export const STATE_SOURCE_UNREADABLE = defineError(
  'STATE_SOURCE_UNREADABLE',
  'The source {place} cannot be read: {reason}. Nothing was counted and nothing was changed.',
  { status: 500, retry: 'never', report: true },
)

export const STATE_VERSION_UNSUPPORTED = defineError(
  'STATE_VERSION_UNSUPPORTED',
  'The source {place} has state version {version}, not 2. {advice} Nothing was changed.',
  { status: 409, retry: 'never', report: true },
)

export const STATE_TARGET_FOREIGN = defineError(
  'STATE_TARGET_FOREIGN',
  'The target {place} cannot be taken: {reason}. Nothing was changed.',
  { status: 409, retry: 'never', report: true },
)

export const STATE_TARGET_READ_ONLY = defineError(
  'STATE_TARGET_READ_ONLY',
  'The target {place} cannot be written: {reason}. The source is untouched.',
  { status: 409, retry: 'never', report: true },
)

export const STATE_STORE_FULL = defineError(
  'STATE_STORE_FULL',
  'The store {place} is full: {reason}. What was complete is kept, what was begun is removed; make room, then resume.',
  { status: 507, retry: 'never', report: true },
)

export const STATE_DEVICE_INVALID = defineError(
  'STATE_DEVICE_INVALID',
  'The device id {device} cannot be kept in {place}: {reason}.',
  { status: 400, retry: 'never', report: false },
)

export const STATE_UNEQUAL = defineError(
  'STATE_UNEQUAL',
  'The states of the device {device} differ between the two sides after the copy: {keys}. It was not marked as moved.',
  { status: 500, retry: 'backoff', report: true },
)

export const STATE_DEVICE_BUSY = defineError(
  'STATE_DEVICE_BUSY',
  'The device {device} changed during each of {tries} copies; it waits for the next round.',
  { status: 503, retry: 'backoff', report: false },
)

export const STATE_PART_MISSING = defineError(
  'STATE_PART_MISSING',
  'The copy of the device {device} lacks the bytes of {key}: they were neither sent nor are they here. It is tried again.',
  { status: 409, retry: 'backoff', report: false },
)

export const STATE_PART_DAMAGED = defineError(
  'STATE_PART_DAMAGED',
  'The bytes of a state of the device {device} are not those of {sha256}. They are not copied; what is at the other site stays.',
  { status: 500, retry: 'backoff', report: true },
)

export const STATE_PARTS_TOO_LARGE = defineError(
  'STATE_PARTS_TOO_LARGE',
  'The states of the device {device} that would have to be read have {bytes} bytes together, more than {maxBytes}. They are not copied; remove states that it does not need.',
  { status: 413, retry: 'backoff', report: true },
)

export const MIGRATION_NOT_FOUND = defineError('MIGRATION_NOT_FOUND', 'There is no migration {id}.', {
  status: 404,
  retry: 'never',
  report: false,
})

export const MIGRATION_PHASE_WRONG = defineError(
  'MIGRATION_PHASE_WRONG',
  'The migration {id} is {phase}; {action} needs it to be {wanted}.',
  { status: 409, retry: 'never', report: false },
)

export const MIGRATION_FAILED = defineError(
  'MIGRATION_FAILED',
  'The migration {id} stands still: {reason} Mend it, then resume.',
  { status: 500, retry: 'never', report: true },
)

export const MIGRATION_LEAD_LOST = defineError(
  'MIGRATION_LEAD_LOST',
  'Another engine leads the migration {id} by now. This one goes on as a helper.',
  { status: 503, retry: 'backoff', report: false },
)
