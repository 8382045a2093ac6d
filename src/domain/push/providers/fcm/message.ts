import { createHash } from 'node:crypto'
import type { CloudMessage } from '../../provider.ts'

/** Bytes of names and values in `data`; FCM takes 4,096 and counts a little of its own. */
export const maxDataBytes = 4_000
/** FCM keeps a message so long at most, seconds. */
const maxTtlSeconds = 28 * 86_400

/**
 * A message of data alone, which the app gets to handle itself. Every value of `data` is a text:
 * `{id, device, send, topic?, count?, acceptedAt, payload? | truncated?}`, `payload` as JSON; `send` is the same when
 * the same is sent again.
 */
export function fcmMessage(token: string, message: CloudMessage): string {
  const ttlSeconds = Math.min(Math.floor(message.ttlMs / 1_000), maxTtlSeconds)
  return JSON.stringify({
    message: {
      token,
      data: dataOf(message),
      android: { priority: 'HIGH', collapse_key: collapseKeyOf(message.collapse), ttl: `${ttlSeconds}s` },
      // For an app on iOS that is registered with FCM: without it iOS does not wake the app for data alone.
      apns: { headers: { 'apns-priority': '5' }, payload: { aps: { 'content-available': 1 } } },
    },
  })
}

function dataOf(message: CloudMessage): Record<string, string> {
  const { push, count } = message
  const head = {
    id: push.id,
    device: message.device,
    send: message.id,
    ...(push.topic === undefined ? {} : { topic: push.topic }),
    ...(count > 1 ? { count: String(count) } : {}),
    acceptedAt: push.acceptedAt,
  }
  if (push.payload === undefined) return push.truncated ? { ...head, truncated: 'true' } : head
  const whole = { ...head, payload: push.payload }
  return sizeOf(whole) <= maxDataBytes ? whole : { ...head, truncated: 'true' }
}

const sizeOf = (data: Record<string, string>): number =>
  Object.entries(data).reduce(
    (sum, [name, text]) => sum + Buffer.byteLength(name) + Buffer.byteLength(text),
    0,
  )

/**
 * One of four. A device that is away has at most four collapse keys at FCM, and of more it drops any; what a newer
 * message took the place of comes with the listen that it causes.
 */
const collapseKeyOf = (collapse: string): string =>
  `baton-${(createHash('sha256').update(collapse).digest()[0] as number) % 4}`
