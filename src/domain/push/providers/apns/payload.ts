import { type CloudMessage, cloudText } from '../../provider.ts'

/** What Apple takes at most of a payload, bytes. */
export const maxPayloadBytes = 4_096

export interface ApnsPayload {
  /** Has to fit what the payload asks for, else the device shows nothing. */
  pushType: 'alert' | 'background'
  /** 10 is refused for a background push. */
  priority: '10' | '5'
  text: string
}

/**
 * `{"aps": …, "id", "device", "topic"?, "count"?, "acceptedAt", "payload"? | "truncated"?}`. A payload that is an
 * object with an `alert`, as Apple defines it, shows that, with its `sound` and `badge`; any other wakes the app in the
 * background. Both make the app listen. What is too long goes first without the payload, then with a shorter alert.
 */
export function apnsPayload(message: CloudMessage): ApnsPayload {
  const shown = shownOf(message.push.payload)
  const forms = shown ? [alerting(shown), alerting({ ...shown, alert: shortened(shown.alert) })] : []
  const whole = forms.map((aps) => textOf(message, aps)).find((text) => fits(text))
  if (whole !== undefined) return { pushType: 'alert', priority: '10', text: whole }
  return { pushType: 'background', priority: '5', text: textOf(message, { 'content-available': 1 }) }
}

interface Shown {
  alert: string | Record<string, unknown>
  sound?: string | Record<string, unknown>
  badge?: number
}

/** What the payload asks to be shown. */
function shownOf(payload: string | undefined): Shown | undefined {
  const found: unknown = payload?.includes('"alert"') ? parsed(payload) : undefined
  if (!isObject(found)) return undefined
  const { alert, sound, badge } = found
  if (!(typeof alert === 'string' ? alert !== '' : isObject(alert) && Object.keys(alert).length > 0)) {
    return undefined
  }
  return {
    alert: alert as Shown['alert'],
    ...(typeof sound === 'string' || isObject(sound) ? { sound } : {}),
    ...(Number.isInteger(badge) ? { badge: badge as number } : {}),
  }
}

/** `mutable-content` lets the app's extension fetch the rest before it shows, `content-available` wakes the app. */
const alerting = (shown: Shown) => ({ ...shown, 'mutable-content': 1, 'content-available': 1 })

const maxShortened = 100

function shortened(alert: Shown['alert']): Shown['alert'] {
  if (typeof alert === 'string') return cut(alert)
  return Object.fromEntries(
    ['title', 'subtitle', 'body'].flatMap((name) => {
      const text = alert[name]
      return typeof text === 'string' ? [[name, cut(text)]] : []
    }),
  )
}

/** A character of two halves is not cut through: half of one is no text. */
const cut = (text: string): string =>
  text.length > maxShortened ? `${text.slice(0, maxShortened - 1).replace(/[\ud800-\udbff]$/, '')}…` : text

function textOf(message: CloudMessage, aps: object): string {
  const head = `{"aps":${JSON.stringify(aps)},`
  return head + cloudText(message, maxPayloadBytes - Buffer.byteLength(head) + 1).slice(1)
}

const fits = (text: string): boolean => Buffer.byteLength(text) <= maxPayloadBytes

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
