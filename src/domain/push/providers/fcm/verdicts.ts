/** What an answer of FCM's that is not 200 says. */
export interface FcmError {
  verdict: FcmVerdict
  /** For people, without the token. */
  reason: string
}

export type FcmVerdict =
  /** Of this token or message alone. */
  | 'rejected'
  /** We sent what nobody should, or the project is not set up: as rejected, and somebody has to look. */
  | 'our-fault'
  /** The project lacks what its iOS or browser tokens need: as rejected, since its Android tokens are not concerned. */
  | 'third-party'
  | 'gone'
  | 'device-limited'
  /** The project sends too much. */
  | 'quota'
  /** The access token is not taken. */
  | 'token'
  /** The account may not send: nothing will be taken until somebody mends it. */
  | 'credentials'
  | 'trouble'

interface Body {
  status: string
  message: string
  /** `errorCode` of the detail of type FcmError. */
  code: string
  /** Fields of the request that a detail of type BadRequest names. */
  fields: string[]
  /** All details, as text. */
  details: string
}

/** By `details[].errorCode` (FCM's ErrorCode), and by the status only where there is none. */
export function readFcmError(status: number, text: string): FcmError {
  const body = readBody(text)
  const verdict = byCode(body) ?? byStatus(status, body)
  return { verdict, reason: [status, body.code || body.status].filter(Boolean).join(' ') }
}

function byCode(body: Body): FcmVerdict | undefined {
  switch (body.code) {
    case 'UNREGISTERED':
      return 'gone'
    case 'INVALID_ARGUMENT':
      return speaksOfToken(body) ? 'gone' : 'our-fault'
    case 'SENDER_ID_MISMATCH':
      return 'rejected'
    case 'THIRD_PARTY_AUTH_ERROR':
      return 'third-party'
    case 'QUOTA_EXCEEDED':
      return isOfDevice(body) ? 'device-limited' : 'quota'
    case 'UNAVAILABLE':
    case 'INTERNAL':
      return 'trouble'
    default:
      return undefined
  }
}

/** Without a code a token is never given up: 404 is also what a project gets that does not exist. */
function byStatus(status: number, body: Body): FcmVerdict {
  if (status === 401) return 'token'
  if (status === 403) return 'credentials'
  if (status === 429) return isOfDevice(body) ? 'device-limited' : 'quota'
  if (status >= 500 || status === 408) return 'trouble'
  return 'our-fault'
}

/**
 * FCM says INVALID_ARGUMENT of a malformed token, and of a message that is too long or has a wrong field. Only what
 * names the token and nothing else is said of the token.
 */
const speaksOfToken = ({ fields, message }: Body): boolean =>
  fields.length > 0 ? fields.every((field) => field === 'message.token') : /registration token/i.test(message)

/** A limit of the project that was taken for one of a device would have all other devices go on against it. */
const isOfDevice = ({ details, message }: Body): boolean =>
  /device/i.test(details + message) && !/RATE_LIMIT_EXCEEDED|project_number/.test(details + message)

function readBody(text: string): Body {
  const error = fieldOf(parsed(text), 'error')
  const found = fieldOf(error, 'details')
  const details: unknown[] = Array.isArray(found) ? found : []
  const ofType = (name: string): unknown[] => details.filter((each) => textOf(each, '@type').endsWith(name))
  const violations = ofType('google.rpc.BadRequest').flatMap((each) => fieldOf(each, 'fieldViolations') ?? [])
  return {
    status: textOf(error, 'status'),
    message: textOf(error, 'message'),
    code: textOf(ofType('FcmError')[0], 'errorCode'),
    fields: violations.map((each) => textOf(each, 'field')),
    details: JSON.stringify(details),
  }
}

const fieldOf = (value: unknown, name: string): unknown =>
  typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[name] : undefined

function textOf(value: unknown, name: string): string {
  const found = fieldOf(value, name)
  return typeof found === 'string' ? found.slice(0, 500) : ''
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
