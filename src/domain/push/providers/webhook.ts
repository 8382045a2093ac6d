import { createHmac } from 'node:crypto'
import type { Clock } from '../../../core/clock.ts'
import { type CloudMessage, cloudText, mostCarried, type Provider, type SendResult } from '../provider.ts'
import type { HttpAnswer, HttpSender } from '../sender/http-sender.ts'
import { retryAfterMs } from '../sender/retry-after.ts'

export interface WebhookOptions {
  sender: HttpSender
  clock: Clock
  /** Longest wait for an answer, ms. */
  timeoutMs: number
}

const maxBytes = mostCarried

/** A POST to an address of the application, signed as standardwebhooks.com says. */
export function createWebhookProvider({ sender, clock, timeoutMs }: WebhookOptions): Provider {
  return {
    kind: 'webhook',
    maxBytes,
    scopeOf: (transport) => new URL(transport.address).origin,
    send: async (transport, message) => {
      const body = Buffer.from(bodyOf(message))
      const { secret } = transport.options
      const headers = {
        'content-type': 'application/json',
        'user-agent': 'baton',
        ...signatureHeaders(message.id, Math.floor(clock.now() / 1_000), body, secret),
      }
      return resultOf(await sender.post({ url: new URL(transport.address), headers, body }, timeoutMs), clock)
    },
    close: async () => undefined,
  }
}

const bodyOf = (message: CloudMessage): string =>
  `{"type":"push","timestamp":"${message.push.acceptedAt}","data":${cloudText(message, maxBytes)}}`

/** The id stays when a message is sent again, so that a receiver can drop the second. */
export function signatureHeaders(
  id: string,
  epochSeconds: number,
  body: Buffer,
  secret: string | undefined,
): Record<string, string> {
  const headers = { 'webhook-id': id, 'webhook-timestamp': String(epochSeconds) }
  if (secret === undefined) return headers
  const key = secret.startsWith('whsec_') ? Buffer.from(secret.slice(6), 'base64') : Buffer.from(secret)
  const mac = createHmac('sha256', key).update(`${id}.${epochSeconds}.`).update(body).digest('base64')
  return { ...headers, 'webhook-signature': `v1,${mac}` }
}

function resultOf(answer: HttpAnswer, clock: Clock): SendResult {
  if (answer.kind === 'refused') return { kind: 'rejected', reason: answer.reason }
  if (answer.kind === 'failed') return { kind: answer.sent ? 'retry' : 'unsent', reason: answer.reason }
  const { status, headers } = answer
  if (status >= 200 && status < 300) return { kind: 'accepted', id: undefined }
  const reason = `the receiver answered ${status}`
  if (status === 410) return { kind: 'gone', reason }
  const after = retryAfterMs(headers, clock.now())
  const wait = after === undefined ? {} : { afterMs: after }
  if (status === 429) return { kind: 'device-limited', reason, ...wait }
  // An address that is deployed anew answers 404 for a while; a redirect is not followed, it could lead anywhere.
  return status >= 500 || status === 408 || status === 404 || status === 425
    ? { kind: 'retry', reason, ...wait }
    : { kind: 'rejected', reason }
}
