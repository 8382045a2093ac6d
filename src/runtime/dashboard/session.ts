import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import type { Clock } from '../../core/clock.ts'
import type { Principal, Role } from '../../platform/access.ts'

/**
 * Who is logged in. It lives in the cookie alone, signed, so that it holds on every node and over restarts. It names
 * the key by its hash: each request asks whether that key is still good, so a session ends when its key is revoked.
 */
export interface Session {
  /** Random; what the tokens of its forms are made of. */
  id: string
  keySha256: string
  owner: string
  name: string
  role: Role
  /** Epoch ms. */
  expiresAt: number
}

export interface Sessions {
  /** The value of a new cookie. */
  begin(principal: Principal, keySha256: string): { cookie: string; session: Session }
  /** The session of a cookie; undefined when it is not ours, changed, or over. */
  read(cookie: string | undefined): Session | undefined
  /** What a form must carry. `subject` is the session's id, or before there is one the nonce of the log-in page. */
  formToken(subject: string): string
  isFormToken(subject: string, token: string | undefined): boolean
  readonly lifeMs: number
}

const lifeMs = 12 * 3_600_000

export function createSessions(options: { secret: string; clock: Clock }): Sessions {
  const { clock } = options
  // A key for each use: what is signed for one cannot be shown for another, such as a device token.
  const keyFor = (use: string): Buffer =>
    createHmac('sha256', options.secret).update(`baton dashboard ${use}`).digest()
  const [sessionKey, formKey] = [keyFor('session'), keyFor('form')]
  const sign = (key: Buffer, text: string): string =>
    createHmac('sha256', key).update(text).digest('base64url')

  return {
    lifeMs,
    begin: ({ owner, name, role }, keySha256) => {
      const expiresAt = clock.now() + lifeMs
      const session: Session = { id: newNonce(), keySha256, owner, name, role, expiresAt }
      const text = Buffer.from(JSON.stringify(session)).toString('base64url')
      return { session, cookie: `${text}.${sign(sessionKey, text)}` }
    },
    read: (cookie) => {
      const [text = '', signature = ''] = (cookie ?? '').split('.')
      if (text === '' || !isSame(signature, sign(sessionKey, text))) return undefined
      const session = JSON.parse(Buffer.from(text, 'base64url').toString()) as Session
      return session.expiresAt > clock.now() ? session : undefined
    },
    formToken: (subject) => sign(formKey, subject),
    isFormToken: (subject, token) => token !== undefined && isSame(token, sign(formKey, subject)),
  }
}

export const newNonce = (): string => randomBytes(16).toString('base64url')

function isSame(given: string, wanted: string): boolean {
  const [a, b] = [Buffer.from(given), Buffer.from(wanted)]
  return a.length === b.length && timingSafeEqual(a, b)
}
