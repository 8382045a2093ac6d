import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import type { Clock } from '../../core/clock.ts'

/** Where a session belongs. It lives in the cookie alone, so that it holds over every restart. */
export interface Pin {
  /** Random. */
  session: string
  /** Id of the target. */
  target: string
  revision: string
  /** Epoch ms at which the session was pinned there. */
  startedAt: number
}

export interface Pins {
  /** The pin of a request's Cookie header; undefined when there is none, or it was not made here. */
  read(cookies: string | undefined): Pin | undefined
  /** The value of a Set-Cookie header that pins a session, a new one unless it is given. */
  issue(place: { target: string; revision: string; session?: string }, secure: boolean): Issued
  /** The value of a Set-Cookie header that takes the pin away. */
  expire(secure: boolean): string
  /** A Cookie header without the pin, which is nobody's business but ours; undefined when nothing is left. */
  strip(cookies: string): string | undefined
}

export interface Issued {
  pin: Pin
  header: string
}

export const pinCookie = 'baton_session'
/** Two pins of the longest names; what is longer was not made here and is not worth an HMAC. */
const longest = 1_024

export function createPins({ secret, clock }: { secret: string; clock: Clock }): Pins {
  // A key for each use: what is signed for another cannot be shown here.
  const key = createHmac('sha256', secret).update('baton gateway session').digest()
  const sign = (text: string): Buffer => createHmac('sha256', key).update(text).digest()

  const verify = (value: string): Pin | undefined => {
    const [text = '', signature = '', ...rest] = value.split('.')
    if (text === '' || rest.length > 0) return undefined
    const given = Buffer.from(signature, 'base64url')
    const wanted = sign(text)
    if (given.length !== wanted.length || !timingSafeEqual(given, wanted)) return undefined
    return JSON.parse(Buffer.from(text, 'base64url').toString()) as Pin
  }

  return {
    read: (cookies) => {
      if (cookies === undefined || !cookies.includes(pinCookie)) return undefined
      for (const value of valuesOf(cookies)) {
        // An old one that was set for another path may come beside ours.
        const pin = value.length <= longest ? verify(value) : undefined
        if (pin) return pin
      }
      return undefined
    },
    issue: ({ target, revision, session = randomBytes(16).toString('base64url') }, secure) => {
      const pin: Pin = { session, target, revision, startedAt: clock.now() }
      const text = Buffer.from(JSON.stringify(pin)).toString('base64url')
      const value = `${text}.${sign(text).toString('base64url')}`
      return { pin, header: `${pinCookie}=${value}; ${attributes(secure)}` }
    },
    expire: (secure) => `${pinCookie}=; Max-Age=0; ${attributes(secure)}`,
    strip: (cookies) => {
      if (!cookies.includes(pinCookie)) return cookies
      const others = cookies.split(';').filter((each) => nameOf(each) !== pinCookie)
      return others.length > 0 ? others.join(';').trim() : undefined
    },
  }
}

const attributes = (secure: boolean): string => `Path=/; HttpOnly; SameSite=Lax${secure ? '; Secure' : ''}`

const nameOf = (cookie: string): string => (cookie.split('=', 1)[0] ?? '').trim()

const valuesOf = (cookies: string): string[] =>
  cookies
    .split(';')
    .filter((each) => nameOf(each) === pinCookie)
    .map((each) => each.slice(each.indexOf('=') + 1).trim())
