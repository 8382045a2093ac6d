import {
  createCipheriv,
  createPublicKey,
  createSecretKey,
  diffieHellman,
  generateKeyPair,
  hash,
  type KeyObject,
  randomFillSync,
} from 'node:crypto'

/** The keys of a subscription, as the browser gave them: raw bytes. */
export interface SubscriptionKeys {
  /** The browser's public key: an uncompressed point of P-256, 65 bytes. */
  p256dh: Buffer
  /** 16 bytes that only the browser and the application know. */
  auth: Buffer
}

/** Longest plaintext for which the body stays within the 4,096 bytes that every push service takes (RFC 8030, 7.2). */
export const maxPlaintextBytes = 3_993

/**
 * Encrypts for one subscription: RFC 8291 over aes128gcm of RFC 8188, one record. The two operations on the curve
 * are done by libuv's threads, so that sends of one process use more than one core and its event loop stays free.
 */
export async function encrypt(keys: SubscriptionKeys, plaintext: Buffer): Promise<Buffer> {
  const browser = createPublicKey({
    key: Buffer.concat([spkiHead, keys.p256dh]),
    format: 'der',
    type: 'spki',
  })
  // A new pair for each message: the content key would otherwise repeat.
  const pair = await newPair()
  const secret = await agree(pair.privateKey, browser)
  return seal({ secret, sender: pointOf(pair.publicKey), salt: nextSalt(), ...keys }, plaintext)
}

/** The DER head of a P-256 public key in SubjectPublicKeyInfo; the 65 bytes of the point follow. */
const spkiHead = Buffer.from('3059301306072a8648ce3d020106082a8648ce3d030107034200', 'hex')

const newPair = (): Promise<{ publicKey: KeyObject; privateKey: KeyObject }> =>
  new Promise((resolve, reject) => {
    generateKeyPair('ec', { namedCurve: 'P-256' }, (error, publicKey, privateKey) =>
      error ? reject(error) : resolve({ publicKey, privateKey }),
    )
  })

const agree = (privateKey: KeyObject, publicKey: KeyObject): Promise<Buffer> =>
  new Promise((resolve, reject) => {
    diffieHellman({ privateKey, publicKey }, (error, secret) => (error ? reject(error) : resolve(secret)))
  })

function pointOf(key: KeyObject): Buffer {
  const { x = '', y = '' } = key.export({ format: 'jwk' })
  const point = Buffer.allocUnsafe(65)
  point[0] = 4
  point.write(x, 1, 'base64url')
  point.write(y, 33, 'base64url')
  return point
}

export interface SealInput extends SubscriptionKeys {
  /** What the two keys agree upon. */
  secret: Buffer
  /** The public key of this message. */
  sender: Buffer
  /** 16 random bytes. */
  salt: Buffer
}

const recordSize = 4_096
const keyInfo = Buffer.from('WebPush: info\0')
const contentKeyInfo = Buffer.from('Content-Encoding: aes128gcm\0\x01')
const nonceInfo = Buffer.from('Content-Encoding: nonce\0\x01')

/** Everything after the key agreement; without chance, so that the RFC's own example can be checked. */
export function seal({ secret, sender, salt, p256dh, auth }: SealInput, plaintext: Buffer): Buffer {
  const input = hmac(hmac(auth, secret), Buffer.concat([keyInfo, p256dh, sender, one]))
  const pseudorandom = hmac(salt, input)
  const contentKey = hmac(pseudorandom, contentKeyInfo).subarray(0, 16)
  const nonce = hmac(pseudorandom, nonceInfo).subarray(0, 12)

  const body = Buffer.allocUnsafe(86 + plaintext.length + 17)
  salt.copy(body, 0)
  body.writeUInt32BE(recordSize, 16)
  body[20] = sender.length
  sender.copy(body, 21)
  // Given as a key object it costs half of what it costs as bytes.
  const cipher = createCipheriv('aes-128-gcm', createSecretKey(contentKey), nonce)
  let offset = 86
  offset += cipher.update(Buffer.concat([plaintext, lastRecord])).copy(body, offset)
  cipher.final()
  cipher.getAuthTag().copy(body, offset)
  return body
}

const one = Buffer.from([1])
/** The delimiter of the last record, with no padding after it. */
const lastRecord = Buffer.from([2])

/** HMAC-SHA-256 of two one-shot hashes: a fifth of what `createHmac` costs, five times a message. Keys of up to 64 bytes. */
function hmac(key: Buffer, data: Buffer): Buffer {
  const inner = Buffer.alloc(64 + data.length, 0x36)
  const outer = Buffer.alloc(96, 0x5c)
  for (let at = 0; at < key.length; at += 1) {
    inner[at] = (key[at] as number) ^ 0x36
    outer[at] = (key[at] as number) ^ 0x5c
  }
  data.copy(inner, 64)
  hash('sha256', inner, 'buffer').copy(outer, 64)
  return hash('sha256', outer, 'buffer')
}

const nextSalt = createSaltPool()

/** Drawn in blocks: a system call a message would cost more than the hashes. */
function createSaltPool(): () => Buffer {
  const block = Buffer.alloc(16 * 64)
  let offset = block.length
  return () => {
    if (offset >= block.length) {
      randomFillSync(block)
      offset = 0
    }
    offset += 16
    return Buffer.from(block.subarray(offset - 16, offset))
  }
}
