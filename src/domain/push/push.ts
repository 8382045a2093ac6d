/** Where a push goes: one device, all of a user, or all of a group. */
export type Target = { device: string } | { user: string } | { group: string }

/** A push that was checked, on its way in. */
export interface NewPush {
  id: string
  to: Target
  /** JSON text, stored as it stands. */
  payload?: string
  /** Of a payload that was put away: there is a single copy of it for now, the other one follows. */
  payloadCopies?: 1
  /** False: only for those who listen. */
  priority: boolean
  /** Replaces what is still open under the same topic. */
  topic?: string
  ttlMs: number
  /** From acceptance to the cloud push. Undefined: twice the reconnect time of the device. */
  confirmMs?: number
  /** From a cloud push to the next transport, unless it is confirmed before. Undefined: never. */
  escalateMs?: number
}

export interface AcceptedPush {
  id: string
  devices: number
  /** Its payload was put away in one place only, since there was no second one; the other copy follows. */
  payloadCopies?: 1
}

export type PushState =
  | 'pending'
  | 'delivered'
  | 'due'
  | 'sending'
  | 'sent'
  | 'undeliverable'
  | 'confirmed'
  | 'expired'
  | 'withdrawn'
  | 'replaced'

/** One line of the delivery log. `at` is ISO 8601; what else there is depends on the name. */
export interface Milestone {
  name: string
  at: string
  [detail: string]: unknown
}

export interface DeliveryLog {
  id: string
  /** How many devices it went to; `devices` shows at most 1,000 of them. */
  count: number
  devices: { device: string; state: PushState; milestones: Milestone[] }[]
}

/** What a device gets from a listen. */
export interface Notification {
  id: string
  device: string
  topic?: string
  /** JSON text, as it was sent. */
  payload?: string
  /** There was a payload, and no store has a sound copy of it any more. */
  payloadLost?: true
  /** ISO 8601. */
  acceptedAt: string
}

/** A notification as JSON, its payload byte for byte as it was sent. */
export function notificationJson(notification: Notification): string {
  const { payload, ...rest } = notification
  const head = JSON.stringify(rest)
  return payload === undefined ? head : `${head.slice(0, -1)},"payload":${payload}}`
}

/** Longest payload as JSON, bytes. What does not fit into a cloud push is fetched by the listen that it causes. */
export const maxPayloadBytes = 1_048_576
/** Longest life of a push, ms: what Web Push services and FCM keep at most. */
export const maxTtlMs = 28 * 86_400_000
export const defaultTtlMs = 86_400_000
export const maxConfirmMs = 86_400_000
