import { defineError } from '../../core/errors.ts'

export const DEVICE_NOT_FOUND = defineError(
  'DEVICE_NOT_FOUND',
  'There is no device {device}. Register it with PUT /v1/devices/:device.',
  { status: 404, retry: 'never', report: false },
)

export const PUSH_NOT_FOUND = defineError('PUSH_NOT_FOUND', 'There is no push {id}.', {
  status: 404,
  retry: 'never',
  report: false,
})

export const PUSH_TOO_LARGE = defineError(
  'PUSH_TOO_LARGE',
  'The payload has {size} bytes as JSON; at most {limit} are taken. Send a reference to it instead.',
  { status: 413, retry: 'never', report: false },
)

export const PUSH_PAYLOAD_UNAVAILABLE = defineError(
  'PUSH_PAYLOAD_UNAVAILABLE',
  'A payload of {size} bytes {why} has to be kept in the stores of bodies, and they take none now. Nothing was taken in; send it again.',
  { status: 503, retry: 'after', report: true },
)

export const DEVICE_TOKEN_INVALID = defineError(
  'DEVICE_TOKEN_INVALID',
  'The token is not valid for the device {device}. Register the device again to get its token.',
  { status: 401, retry: 'never', report: false },
)

export const LISTEN_REPLACED = defineError(
  'LISTEN_REPLACED',
  'A newer listen of the same device took over. Only one listen a device is served; this one is over.',
  { status: 409, retry: 'never', report: false },
)

export const CURSOR_INVALID = defineError(
  'CURSOR_INVALID',
  'The cursor {reason}. Listen without one, or with the one of the last answer.',
  { status: 400, retry: 'never', report: false },
)

export const ADDRESS_REFUSED = defineError(
  'ADDRESS_REFUSED',
  '{host} is a private, local or reserved address, and pushes go to public ones only. For an intranet set PUSH_ALLOW_PRIVATE=1.',
  { status: 400, retry: 'never', report: false },
)

export const PROVIDER_UNREACHABLE = defineError(
  'PROVIDER_UNREACHABLE',
  'The provider {origin} could not be asked: {reason}.',
  { status: 502, retry: 'backoff', report: false },
)
