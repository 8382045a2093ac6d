import { createHash } from 'node:crypto'
import type { Clock } from '../../../core/clock.ts'
import { type CloudMessage, cloudText, type Provider, type SendResult } from '../provider.ts'
import type { HttpAnswer, HttpSender } from '../sender/http-sender.ts'
import { retryAfterMs } from '../sender/retry-after.ts'
import type { StoredTransport } from '../transport.ts'
import { encrypt, maxPlaintextBytes } from './webpush/encrypt.ts'
import type { Vapid } from './webpush/vapid.ts'

export interface WebpushOptions {
  sender: HttpSender
  vapid: Vapid
  clock: Clock
  /** Longest wait for an answer, ms. */
  timeoutMs: number
}

/** What a push service keeps at most, seconds; Mozilla's takes 30 days, FCM's 28. */
const maxTtlSeconds = 28 * 86_400
/** What is left of 4,096 bytes where a service hands on to another one (autopush to FCM). */
const bridgedBytes = 2_700

/** Web Push: RFC 8030, encrypted after RFC 8291, signed after RFC 8292. */
export function createWebpushProvider(options: WebpushOptions): Provider {
  const { sender, vapid, clock, timeoutMs } = options
  /** Origins that took less than the standard promises, and how much. */
  const limits = new Map<string, number>()

  const send = async (transport: StoredTransport, message: CloudMessage): Promise<SendResult> => {
    const url = new URL(transport.address)
    const limit = limits.get(url.origin) ?? maxPlaintextBytes
    const text = Buffer.from(cloudText(message, limit))
    const { p256dh = '', auth = '' } = transport.options
    const keys = { p256dh: Buffer.from(p256dh, 'base64url'), auth: Buffer.from(auth, 'base64url') }
    const headers = {
      ttl: String(Math.min(Math.floor(message.ttlMs / 1_000), maxTtlSeconds)),
      urgency: 'high',
      topic: topicOf(message.collapse),
      'content-encoding': 'aes128gcm',
      'content-type': 'application/octet-stream',
      authorization: vapid.authorization(url.origin),
    }
    const answer = await sender.post({ url, headers, body: await encrypt(keys, text) }, timeoutMs)
    if (answer.kind !== 'answer') return failureOf(answer)
    if (answer.status === 401 || answer.status === 403) return again(answer, vapid.renew(url.origin), 100)
    if (answer.status === 413) return again(answer, shrink(url.origin, text.length), 50)
    return resultOf(answer, clock.now())
  }

  /** The next try carries less: without its payload a push still makes the device listen. */
  const shrink = (origin: string, size: number): boolean => {
    const limit = limits.get(origin) ?? maxPlaintextBytes
    if (limit === 0 || size > limit) return false
    limits.set(origin, limit > bridgedBytes && size > bridgedBytes ? bridgedBytes : 0)
    return true
  }

  return {
    kind: 'webpush',
    maxBytes: maxPlaintextBytes,
    scopeOf: (transport) => new URL(transport.address).origin,
    send: async (transport, message) => {
      try {
        return await send(transport, message)
      } catch (error) {
        // Keys that no message can be encrypted for.
        return { kind: 'rejected', reason: error instanceof Error ? error.message : 'cannot be encrypted' }
      }
    },
    close: async () => undefined,
  }
}

type Answer = Extract<HttpAnswer, { kind: 'answer' }>

const failureOf = (answer: Exclude<HttpAnswer, Answer>): SendResult => {
  if (answer.kind === 'refused') return { kind: 'rejected', reason: answer.reason }
  return { kind: answer.sent ? 'retry' : 'unsent', reason: answer.reason }
}

/** Once more when something was changed meanwhile, else never. */
const again = (answer: Answer, changed: boolean, afterMs: number): SendResult =>
  changed
    ? { kind: 'retry', reason: reasonOf(answer), afterMs }
    : { kind: 'rejected', reason: reasonOf(answer) }

function resultOf(answer: Answer, now: number): SendResult {
  const { status, headers } = answer
  if (status >= 200 && status < 300) return { kind: 'accepted', id: headers['location'] }
  const reason = reasonOf(answer)
  if (status === 404 || status === 410) return { kind: 'gone', reason }
  const after = retryAfterMs(headers, now)
  const wait = after === undefined ? {} : { afterMs: after }
  // Said of this subscription (RFC 8030, 8.4): the others go on.
  if (status === 429) return { kind: 'device-limited', reason, ...wait }
  return status >= 500 || status === 408 ? { kind: 'retry', reason, ...wait } : { kind: 'rejected', reason }
}

/** 32 characters of base64url, which is all that a topic may have (RFC 8030, 5.4). */
const topicOf = (collapse: string): string =>
  createHash('sha256').update(collapse).digest().toString('base64url', 0, 24)

const reasonOf = ({ status, body }: { status: number; body: string }): string =>
  `${status} ${body.replaceAll(/\s+/g, ' ').slice(0, 160)}`.trim()
