import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto'
import { SYNC_SECRET_MISSING } from './protocol-errors.ts'

/** Seals the keys of other sites: who reads the table cannot speak for this one. */
export interface KeySeal {
  /** @throws SYNC_SECRET_MISSING */
  close(key: string): string
  /** Undefined for what was sealed with another secret. */
  open(sealed: string): string | undefined
}

/** AES-256-GCM with a key made from BATON_SECRET: nonce, tag and text, in base64url. */
export function createKeySeal(secret: string | undefined): KeySeal {
  const key =
    secret === undefined ? undefined : Buffer.from(hkdfSync('sha256', secret, '', 'baton replica key', 32))
  return {
    close: (text) => {
      if (!key) throw SYNC_SECRET_MISSING()
      const nonce = randomBytes(12)
      const cipher = createCipheriv('aes-256-gcm', key, nonce)
      const body = Buffer.concat([cipher.update(text), cipher.final()])
      return Buffer.concat([nonce, cipher.getAuthTag(), body]).toString('base64url')
    },
    open: (sealed) => {
      if (!key) return undefined
      const bytes = Buffer.from(sealed, 'base64url')
      try {
        const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(0, 12))
        decipher.setAuthTag(bytes.subarray(12, 28))
        return Buffer.concat([decipher.update(bytes.subarray(28)), decipher.final()]).toString()
      } catch {
        return undefined
      }
    },
  }
}
