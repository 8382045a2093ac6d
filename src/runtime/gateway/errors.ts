import { defineError } from '../../core/errors.ts'

export const TARGET_UNAVAILABLE = defineError(
  'TARGET_UNAVAILABLE',
  'The application cannot be reached just now ({reason}). Nothing of the request was passed on; try again.',
  { status: 503, retry: 'after', report: false },
)

export const TARGET_BROKE_OFF = defineError(
  'TARGET_BROKE_OFF',
  'The application ended the connection before it had answered. Whether the request had an effect is not known.',
  { status: 502, retry: 'backoff', report: false },
)

export const TARGET_TIMED_OUT = defineError(
  'TARGET_TIMED_OUT',
  'The application has not begun to answer within {limitMs} ms. Whether the request had an effect is not known.',
  { status: 504, retry: 'backoff', report: false },
)

export const GATEWAY_PATH_UNKNOWN = defineError(
  'GATEWAY_PATH_UNKNOWN',
  'The gateway has nothing at {path}. Paths below /.gateway/ are its own.',
  { status: 404, retry: 'never', report: false },
)

export const REVISION_UNUSABLE = defineError(
  'REVISION_UNUSABLE',
  'Revision {revision} did not come up: {reason}. It was ended, and nothing else has changed.{lines}',
  { status: 422, retry: 'never', report: false },
)

export const REVISION_IN_USE = defineError(
  'REVISION_IN_USE',
  'A target of revision {revision} lives ({state}). Give the new one another name, or `baton gateway end {revision}`.',
  { status: 409, retry: 'never', report: false },
)

export const REVISION_NOT_FOUND = defineError(
  'REVISION_NOT_FOUND',
  'No target of revision {revision} lives. `baton gateway status` lists those that do.',
  { status: 404, retry: 'never', report: false },
)

export const REVISION_NOT_DETACHED = defineError(
  'REVISION_NOT_DETACHED',
  'Revision {revision} is {state}; only a detached one can be extended or ended. An upgrade detaches the current one.',
  { status: 409, retry: 'never', report: false },
)

export const UPGRADE_UNDER_WAY = defineError(
  'UPGRADE_UNDER_WAY',
  'Another upgrade, to {revision}, is under way. Wait for its end; `baton gateway status` shows it.',
  { status: 409, retry: 'backoff', report: false },
)

export const GATEWAY_STOPPING = defineError(
  'GATEWAY_STOPPING',
  'The gateway is being stopped; nothing has changed.',
  { status: 503, retry: 'backoff', report: false },
)

export const GATEWAY_ALREADY_RUNNING = defineError(
  'GATEWAY_ALREADY_RUNNING',
  'A gateway answers on {socket} already. Stop it first, or give this one another GATEWAY_SOCKET.',
  { status: 500, retry: 'never', report: true },
)

export const GATEWAY_SOCKET_UNUSABLE = defineError(
  'GATEWAY_SOCKET_UNUSABLE',
  'The control socket {socket} cannot be used: {reason}. Set GATEWAY_SOCKET to a short path in a folder of your own.',
  { status: 500, retry: 'never', report: true },
)

export const GATEWAY_STATE_UNWRITABLE = defineError(
  'GATEWAY_STATE_UNWRITABLE',
  'The gateway cannot write down what it is to start: {reason}. Nothing has changed. Make room in the folder of GATEWAY_SOCKET, or give rights there.',
  { status: 500, retry: 'backoff', report: true },
)

export const GATEWAY_NOT_RUNNING = defineError(
  'GATEWAY_NOT_RUNNING',
  'No gateway answers on {socket}: {reason}. Start it with `baton gateway`, or name its socket with GATEWAY_SOCKET.',
  { status: 503, retry: 'backoff', report: false },
)

export const GATEWAY_ANSWER_LOST = defineError(
  'GATEWAY_ANSWER_LOST',
  'The gateway on {socket} went away before it had answered: {reason}. `baton gateway status` tells what has come of it.',
  { status: 503, retry: 'never', report: false },
)

export const GATEWAY_INPUT_INVALID = defineError(
  'GATEWAY_INPUT_INVALID',
  'The gateway cannot do that: {reason}.',
  { status: 400, retry: 'never', report: false },
)
