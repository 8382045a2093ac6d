import type { StoredTransport, TransportKind } from './transport.ts'

/** A cloud push, as every provider is given it. */
export interface CloudMessage {
  /** Of this cloud push. The same when it is sent again, so that the receiver can tell (apns-id, webhook-id). */
  id: string
  device: string
  /** Pushes with the same key replace each other on the device. Any text; a provider hashes it to what its field holds. */
  collapse: string
  /** How many pushes it stands for. The others are fetched by the listen that it causes. */
  count: number
  /** How long the provider keeps it for a device that is away, ms. */
  ttlMs: number
  /** The newest of the pushes. `truncated`: it has a payload, which this cloud push goes without. */
  push: { id: string; topic?: string; payload?: string; truncated?: true; acceptedAt: string }
}

/** What a provider says of one try. Waits are in ms from now; undefined leaves it to the caller's back-off. */
export type SendResult =
  /** It is with the provider. `id`: what the provider calls it. */
  | { kind: 'accepted'; id: string | undefined }
  /** The address does not exist any more, said in so many words. `at`: since when, epoch ms, if the provider says so. */
  | { kind: 'gone'; reason: string; at?: number }
  /** The provider is in trouble or too busy, or did not answer: the same again later. It may have taken it all the same. */
  | { kind: 'retry'; reason: string; afterMs?: number }
  /** This device gets too many; other devices are not concerned. */
  | { kind: 'device-limited'; reason: string; afterMs?: number }
  /** It will never be taken over this transport: too large, malformed, refused. */
  | { kind: 'rejected'; reason: string }
  /** Nothing left the house: a connection could not be made, a breaker is open. */
  | { kind: 'unsent'; reason: string; afterMs?: number }

/** The largest `maxBytes` of all providers. */
export const mostCarried = 65_536

/** One way into a cloud. One suite (test/contracts/push-provider.ts) is run against every implementation. */
export interface Provider {
  readonly kind: TransportKind
  /** Most bytes of payload that it could carry. What is longer is not fetched for it. */
  readonly maxBytes: number
  /** What fails together: an origin, a team, a project. Bulkhead and breaker are one for each. */
  scopeOf(transport: StoredTransport): string
  /**
   * One try, within the provider's own deadline. Never throws for what a provider or a network can do, never
   * tries twice. What it leaves unsaid, it does not know.
   */
  send(transport: StoredTransport, message: CloudMessage): Promise<SendResult>
  close(): Promise<void>
}

/** What of a cloud push the device gets to see, as JSON. Without the payload where it does not fit. */
export function cloudText(message: CloudMessage, maxBytes: number): string {
  const { push, count } = message
  const head = {
    id: push.id,
    device: message.device,
    ...(push.topic === undefined ? {} : { topic: push.topic }),
    ...(count > 1 ? { count } : {}),
    acceptedAt: push.acceptedAt,
  }
  const bare = JSON.stringify(head)
  const truncated = `${bare.slice(0, -1)},"truncated":true}`
  if (push.payload === undefined) return push.truncated ? truncated : bare
  const whole = `${bare.slice(0, -1)},"payload":${push.payload}}`
  return Buffer.byteLength(whole) <= maxBytes ? whole : truncated
}
