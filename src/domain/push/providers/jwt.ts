import { type KeyObject, sign } from 'node:crypto'

export interface JwtOptions {
  /** ES256 with a key of P-256, RS256 with one of RSA. */
  alg: 'ES256' | 'RS256'
  key: KeyObject
  /** Which of the signer's keys it is, where the reader has to be told. */
  kid?: string
  claims: Record<string, string | number>
}

/** A signed JSON Web Token (RFC 7515, 3.1; RFC 7518, 3.3 and 3.4). */
export function signJwt({ alg, key, kid, claims }: JwtOptions): string {
  const head = { typ: 'JWT', alg, ...(kid === undefined ? {} : { kid }) }
  const text = `${encode(head)}.${encode(claims)}`
  // JWS wants the two halves of an ECDSA signature side by side, not in DER; for RSA it says nothing.
  const signature = sign('sha256', Buffer.from(text), { key, dsaEncoding: 'ieee-p1363' })
  return `${text}.${signature.toString('base64url')}`
}

const encode = (part: object): string => Buffer.from(JSON.stringify(part)).toString('base64url')
