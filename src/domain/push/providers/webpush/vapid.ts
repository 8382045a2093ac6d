import { createPrivateKey } from 'node:crypto'
import type { Clock } from '../../../../core/clock.ts'
import { signJwt } from '../jwt.ts'

export interface VapidKeys {
  /** Whom a push service can write to: `mailto:` or `https:`. */
  subject: string
  /** Uncompressed point of P-256, base64url: what browsers subscribe with. */
  publicKey: string
  /** 32 bytes, base64url. */
  privateKey: string
}

/** Tells push services who sends (RFC 8292). */
export interface Vapid {
  /** The `Authorization` header for an origin. Senders are encouraged to use a token again, so it is. */
  authorization(origin: string): string
  /** Forgets the token of an origin that refused it. False when it was made only just now: another will not help. */
  renew(origin: string): boolean
}

const lifeMs = 12 * 3_600_000
const freshMs = 60_000
const maxOrigins = 10_000

export function createVapid(keys: VapidKeys, clock: Clock): Vapid {
  const point = Buffer.from(keys.publicKey, 'base64url')
  const key = createPrivateKey({
    format: 'jwk',
    key: {
      kty: 'EC',
      crv: 'P-256',
      x: point.toString('base64url', 1, 33),
      y: point.toString('base64url', 33, 65),
      d: scalarOf(keys.privateKey).toString('base64url'),
    },
  })
  const tokens = new Map<string, { header: string; madeAt: number }>()

  const make = (origin: string): string => {
    const claims = { aud: origin, exp: Math.floor((clock.now() + lifeMs) / 1_000), sub: keys.subject }
    return `vapid t=${signJwt({ alg: 'ES256', key, claims })}, k=${point.toString('base64url')}`
  }

  return {
    authorization: (origin) => {
      const known = tokens.get(origin)
      if (known && clock.now() - known.madeAt < lifeMs / 2) return known.header
      if (tokens.size >= maxOrigins) tokens.delete(tokens.keys().next().value ?? '')
      const made = { header: make(origin), madeAt: clock.now() }
      tokens.set(origin, made)
      return made.header
    },
    renew: (origin) => {
      const known = tokens.get(origin)
      tokens.delete(origin)
      return known !== undefined && clock.now() - known.madeAt > freshMs
    },
  }
}

/** 32 bytes, also when the leading ones are zero and were left out. */
function scalarOf(text: string): Buffer {
  const bytes = Buffer.from(text, 'base64url')
  return Buffer.concat([Buffer.alloc(Math.max(0, 32 - bytes.length)), bytes])
}
