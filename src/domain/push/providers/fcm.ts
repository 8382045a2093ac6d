import type { Clock } from '../../../core/clock.ts'
import type { TroubleLog } from '../../../platform/trouble-log.ts'
import type { Provider, SendResult } from '../provider.ts'
import type { HttpAnswer, HttpSender } from '../sender/http-sender.ts'
import { retryAfterMs } from '../sender/retry-after.ts'
import type { FcmAccess } from './fcm/access.ts'
import { fcmMessage, maxDataBytes } from './fcm/message.ts'
import { type FcmVerdict, readFcmError } from './fcm/verdicts.ts'

export interface FcmOptions {
  sender: HttpSender
  access: FcmAccess
  projectId: string
  clock: Clock
  /** Is told what only people can mend. */
  troubles: TroubleLog
  /** Longest wait for an answer, the one for an access token included, ms. */
  timeoutMs: number
  origin: string
}

/** What FCM asks for at least when the project sends too much, ms. */
const quotaMs = 60_000
/** Until what only people can mend is tried again, ms. */
const pauseMs = 5 * 60_000

/** Firebase Cloud Messaging, HTTP v1. */
export function createFcmProvider(options: FcmOptions): Provider {
  const { sender, access, projectId, clock, timeoutMs, troubles } = options
  const url = new URL(`/v1/projects/${encodeURIComponent(projectId)}/messages:send`, options.origin)
  return {
    kind: 'fcm',
    maxBytes: maxDataBytes,
    scopeOf: () => `fcm ${projectId}`,
    send: async (transport, message) => {
      const until = clock.monotonicMs() + timeoutMs
      const token = await access.current()
      if (token.kind === 'failed') {
        if (token.refused) troubles.tell(faults.credentials, token.result.reason)
        return token.result
      }
      const leftMs = until - clock.monotonicMs()
      if (leftMs <= 0) return { kind: 'unsent', reason: 'the access token took too long' }
      const headers = { authorization: `Bearer ${token.text}`, 'content-type': 'application/json' }
      const body = Buffer.from(fcmMessage(transport.address, message))
      const answer = await sender.post({ url, headers, body }, leftMs)
      if (answer.kind === 'answer') {
        return answer.status === 200
          ? { kind: 'accepted', id: nameOf(answer.body) }
          : refusalOf(answer, token.text, options)
      }
      if (answer.kind === 'refused') return { kind: 'rejected', reason: answer.reason }
      return { kind: answer.sent ? 'retry' : 'unsent', reason: answer.reason }
    },
    close: async () => undefined,
  }
}

type Answer = Extract<HttpAnswer, { kind: 'answer' }>

/** `projects/…/messages/…`, by which FCM knows the message. */
const nameOf = (body: string): string | undefined => /"name"\s*:\s*"([^"]{1,200})"/.exec(body)?.[1]

function refusalOf(answer: Answer, token: string, { access, clock, troubles }: FcmOptions): SendResult {
  const { status, headers, body } = answer
  const { verdict, reason } = readFcmError(status, body)
  const wait = retryAfterMs(headers, clock.now())
  // A token that was taken back is replaced; when a new one is refused too, it is not the token.
  const renewed = verdict === 'token' && access.refused(token)
  if (!renewed && isFault(verdict)) troubles.tell(faults[verdict], reason)
  if (verdict === 'gone') return { kind: 'gone', reason }
  if (verdict === 'rejected' || verdict === 'our-fault' || verdict === 'third-party') {
    return { kind: 'rejected', reason }
  }
  const kind = verdict === 'device-limited' ? verdict : 'retry'
  const afterMs = renewed ? 100 : (wait ?? waitOf(verdict))
  return { kind, reason, ...(afterMs === undefined ? {} : { afterMs }) }
}

/** Undefined leaves it to the caller's growing pauses. */
function waitOf(verdict: FcmVerdict): number | undefined {
  if (verdict === 'quota') return spread(quotaMs)
  return verdict === 'token' || verdict === 'credentials' ? spread(pauseMs) : undefined
}

/** So that what waited for the same reason does not come back in one wave. */
const spread = (waitMs: number): number => Math.round(waitMs * (1 + Math.random() / 5))

const faults = {
  credentials:
    'FCM does not take the service account; see FCM_SERVICE_ACCOUNT, and whether it may send messages',
  token: 'FCM does not take the access token of the service account; see FCM_SERVICE_ACCOUNT',
  'third-party': "FCM cannot reach APNs or browsers for this project; see the project's settings for them",
  'our-fault':
    'FCM does not take what it is sent; see the project id in FCM_SERVICE_ACCOUNT, else this is a fault of Baton',
}

const isFault = (verdict: FcmVerdict): verdict is keyof typeof faults => verdict in faults
