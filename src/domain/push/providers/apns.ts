import { createHash } from 'node:crypto'
import type { Clock } from '../../../core/clock.ts'
import type { TroubleLog } from '../../../platform/trouble-log.ts'
import type { CloudMessage, Provider, SendResult } from '../provider.ts'
import type { HttpAnswer, HttpSender } from '../sender/http-sender.ts'
import { retryAfterMs } from '../sender/retry-after.ts'
import type { StoredTransport } from '../transport.ts'
import { apnsPayload } from './apns/payload.ts'
import type { ApnsTokens } from './apns/tokens.ts'
import { type ApnsVerdict, apnsVerdict } from './apns/verdicts.ts'

export interface ApnsOptions {
  /** Its sessions should never end for being idle: Apple takes connections that come and go for an attack. */
  sender: HttpSender
  tokens: ApnsTokens
  clock: Clock
  /** Is told what only people can mend. */
  troubles: TroubleLog
  /** Longest wait for an answer, ms. */
  timeoutMs: number
  /** Where to send instead of to Apple, whatever the device's environment. */
  origin?: string | undefined
}

/** Where Apple takes pushes for devices of that environment. */
export const appleOrigin = (environment: string | undefined): string =>
  environment === 'sandbox' ? 'https://api.sandbox.push.apple.com' : 'https://api.push.apple.com'

/** A payload that does not fit is still looked at for its alert, if it is no longer than this, bytes. */
const maxBytes = 16_384
/** What Apple asks for after a 5xx, ms. */
const troubleMs = 15 * 60_000
/** Until what only people can mend is tried again, ms. */
const pauseMs = 5 * 60_000

/** Apple's push notification service: HTTP/2 with a provider token. */
export function createApnsProvider(options: ApnsOptions): Provider {
  const { sender, tokens, clock, timeoutMs } = options
  const originOf = ({ options: { environment } }: StoredTransport): string =>
    options.origin ?? appleOrigin(environment)

  return {
    kind: 'apns',
    maxBytes,
    scopeOf: (transport) => `apns ${originOf(transport)}`,
    send: async (transport, message) => {
      const until = clock.monotonicMs() + timeoutMs
      const token = await tokens.current()
      const { priority, pushType, text } = apnsPayload(message)
      const headers = {
        authorization: `bearer ${token}`,
        'apns-id': message.id,
        'apns-topic': transport.options['topic'] ?? '',
        'apns-push-type': pushType,
        'apns-priority': priority,
        'apns-expiration': expirationOf(message, tokens.now()),
        'apns-collapse-id': collapseIdOf(message.collapse),
        'content-type': 'application/json',
      }
      const url = new URL(`/3/device/${encodeURIComponent(transport.address)}`, originOf(transport))
      const leftMs = Math.max(1, until - clock.monotonicMs())
      const answer = await sender.post({ url, headers, body: Buffer.from(text) }, leftMs)
      if (answer.kind === 'answer') {
        if (answer.status !== 200) return refusalOf(answer, { token, ...options })
        return { kind: 'accepted', id: answer.headers['apns-id'] ?? message.id }
      }
      if (answer.kind === 'refused') return { kind: 'rejected', reason: answer.reason }
      return { kind: answer.sent ? 'retry' : 'unsent', reason: answer.reason }
    },
    close: async () => undefined,
  }
}

type Answer = Extract<HttpAnswer, { kind: 'answer' }>

/** One try, and what its answer may change. */
interface Attempt extends ApnsOptions {
  token: string
}

async function refusalOf(answer: Answer, attempt: Attempt): Promise<SendResult> {
  const { status, headers, body } = answer
  const said = readError(body)
  const reason = `${status} ${said.reason}`.trim()
  const verdict = apnsVerdict(status, said.reason)
  const fault = faults[verdict]
  if (fault) attempt.troubles.tell(fault, reason)
  const wait = retryAfterMs(headers, attempt.clock.now())
  if (verdict === 'gone') {
    return { kind: 'gone', reason, ...(said.timestamp === undefined ? {} : { at: said.timestamp }) }
  }
  if (verdict === 'rejected' || verdict === 'our-fault') return { kind: 'rejected', reason }
  if (verdict === 'device-limited') {
    return { kind: 'device-limited', reason, ...(wait === undefined ? {} : { afterMs: wait }) }
  }
  const ownMs = await waitOf(verdict, attempt)
  return { kind: 'retry', reason, afterMs: wait ?? ownMs }
}

type Again = Exclude<ApnsVerdict, 'gone' | 'rejected' | 'our-fault' | 'device-limited'>

/** How long the same has to wait before it is tried again, ms; a token that is too old is replaced meanwhile. */
async function waitOf(verdict: Again, { tokens, token }: Attempt): Promise<number> {
  switch (verdict) {
    case 'token':
      return (await tokens.refused(token)) || 100
    case 'token-updates':
      tokens.hold()
      return spread(pauseMs)
    case 'credentials':
      return spread(pauseMs)
    case 'reconnect':
      return spread(1_000)
    case 'trouble':
      return spread(troubleMs)
  }
}

/** So that what waited for the same reason does not come back in one wave. */
const spread = (waitMs: number): number => Math.round(waitMs * (1 + Math.random() / 5))

const faults: Partial<Record<ApnsVerdict, string>> = {
  'our-fault':
    'APNs does not take what it is sent; see the topic of the device, else this is a fault of Baton',
  token: 'APNs calls the provider token expired; if this goes on, see the clock of Postgres',
  'token-updates':
    'APNs says that the provider token changes too often; does somebody else sign with the same key?',
  credentials: 'APNs does not take the provider token; see APNS_TEAM_ID, APNS_KEY_ID and APNS_KEY',
}

interface Said {
  reason: string
  /** Since when the token is not valid any more, epoch ms. */
  timestamp?: number
}

function readError(body: string): Said {
  try {
    const { reason, timestamp } = JSON.parse(body) as Record<string, unknown>
    return {
      reason: typeof reason === 'string' ? reason.slice(0, 100) : '',
      ...(typeof timestamp === 'number' && timestamp > 0 ? { timestamp } : {}),
    }
  } catch {
    return { reason: '' }
  }
}

/** Until when Apple keeps it, epoch seconds; 0: only for a device that is there now. */
const expirationOf = ({ ttlMs }: CloudMessage, now: number): string =>
  ttlMs < 1_000 ? '0' : String(Math.floor((now + ttlMs) / 1_000))

/** 43 bytes; at most 64 are taken. */
const collapseIdOf = (collapse: string): string => createHash('sha256').update(collapse).digest('base64url')
