import { createHmac } from 'node:crypto'
import { sameSecret } from '../../core/digest.ts'

/** Which device a token is for, and which registration of it: a device that was deleted and made anew has another. */
export interface TokenHolder {
  device: string
  generation: string
}

export interface DeviceTokens {
  /** The same device and registration always gives the same token. */
  issue(holder: TokenHolder): string
  /** Undefined when it was not issued with this secret. */
  read(token: string): TokenHolder | undefined
}

/** Tokens `bd1.<device>.<generation>.<mac>`, checked without a look at the database. */
export function createDeviceTokens(secret: string): DeviceTokens {
  const key = createHmac('sha256', secret).update('baton device token').digest()
  const macOf = (text: string): string => createHmac('sha256', key).update(text).digest('base64url')
  return {
    issue: ({ device, generation }) => {
      const body = `bd1.${Buffer.from(device).toString('base64url')}.${generation}`
      return `${body}.${macOf(body)}`
    },
    read: (token) => {
      const match = /^(bd1\.([\w-]+)\.(\d{1,20}))\.([\w-]{43})$/.exec(token)
      if (!match) return undefined
      const [, body = '', device = '', generation = '', mac = ''] = match
      if (!sameSecret(mac, macOf(body))) return undefined
      return { device: Buffer.from(device, 'base64url').toString(), generation }
    },
  }
}
