import { createECDH, verify } from 'node:crypto'
import { createRequire } from 'node:module'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../../src/core/clock.ts'
import { encrypt, maxPlaintextBytes, seal } from '../../../../src/domain/push/providers/webpush/encrypt.ts'
import { createVapid } from '../../../../src/domain/push/providers/webpush/vapid.ts'
import { browserKeys } from '../ground.ts'

interface HttpEce {
  decrypt(body: Buffer, options: { version: 'aes128gcm'; privateKey: unknown; authSecret: string }): Buffer
}
const ece = createRequire(import.meta.url)('http_ece') as HttpEce
const bytes = (text: string): Buffer => Buffer.from(text, 'base64url')

describe('the encryption of Web Push', () => {
  it('gives the body of the example in RFC 8291, section 5', () => {
    const sender = createECDH('prime256v1')
    sender.setPrivateKey(bytes('yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw'))
    const p256dh = bytes(
      'BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4',
    )
    const body = seal(
      {
        secret: sender.computeSecret(p256dh),
        sender: sender.getPublicKey(),
        salt: bytes('DGv6ra1nlYgDCS1FRnbzlw'),
        auth: bytes('BTBZMqHH6r4Tts7J_aSIgg'),
        p256dh,
      },
      Buffer.from('When I grow up, I want to be a watermelon'),
    )
    expect(body.toString('base64url')).toBe(
      'DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN',
    )
  })

  it('is read by an independent library, whatever the text and its length', async () => {
    const { ecdh, auth, keys } = browserKeys()
    const raw = { p256dh: bytes(keys.p256dh), auth: bytes(auth) }
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: maxPlaintextBytes }), async (text) => {
        const body = await encrypt(raw, Buffer.from(text))
        const read = ece.decrypt(body, { version: 'aes128gcm', privateKey: ecdh, authSecret: auth })
        expect(read.equals(Buffer.from(text))).toBe(true)
      }),
      { numRuns: 60, examples: [[new Uint8Array(0)], [new Uint8Array(maxPlaintextBytes)]] },
    )
  })

  it('fills exactly what every push service takes', async () => {
    const { keys, auth } = browserKeys()
    const body = await encrypt(
      { p256dh: bytes(keys.p256dh), auth: bytes(auth) },
      Buffer.alloc(maxPlaintextBytes),
    )
    expect(body.length).toBe(4_096)
  })

  it('never uses a key or a salt twice', async () => {
    const { keys, auth } = browserKeys()
    const raw = { p256dh: bytes(keys.p256dh), auth: bytes(auth) }
    const bodies = await Promise.all(Array.from({ length: 200 }, () => encrypt(raw, Buffer.from('same'))))
    expect(new Set(bodies.map((body) => body.toString('hex', 0, 16))).size).toBe(200)
    expect(new Set(bodies.map((body) => body.toString('hex', 21, 86))).size).toBe(200)
  })
})

describe('the signature of Web Push', () => {
  const { ecdh } = browserKeys()
  const keys = {
    subject: 'mailto:push@example.com',
    publicKey: ecdh.getPublicKey('base64url'),
    privateKey: ecdh.getPrivateKey('base64url'),
  }

  it('is a token of ES256 for the origin, valid for less than a day, and used again', () => {
    const vapid = createVapid(keys, createSystemClock())
    const header = vapid.authorization('https://push.example.net')
    const [, head = '', claims = '', signature = '', key = ''] =
      /^vapid t=([\w-]+)\.([\w-]+)\.([\w-]+), k=([\w-]+)$/.exec(header) ?? []
    expect(key).toBe(keys.publicKey)
    const { aud, exp, sub } = JSON.parse(bytes(claims).toString()) as {
      aud: string
      exp: number
      sub: string
    }
    expect([aud, sub]).toEqual(['https://push.example.net', keys.subject])
    const aheadS = exp - Date.now() / 1_000
    expect(aheadS > 3_600 && aheadS < 86_400).toBe(true)
    const point = bytes(keys.publicKey)
    const jwk = {
      kty: 'EC',
      crv: 'P-256',
      x: point.toString('base64url', 1, 33),
      y: point.toString('base64url', 33),
    }
    const valid = verify(
      'sha256',
      Buffer.from(`${head}.${claims}`),
      { key: jwk, format: 'jwk', dsaEncoding: 'ieee-p1363' },
      bytes(signature),
    )
    expect(valid).toBe(true)
    expect(vapid.authorization('https://push.example.net')).toBe(header)
    expect(vapid.authorization('https://other.example.net')).not.toBe(header)
  })

  it('is made anew when it is refused, and when it is old, but not over and over', () => {
    let now = 1_750_000_000_000
    const vapid = createVapid(keys, { ...createSystemClock(), now: () => now })
    const first = vapid.authorization('https://a.example')
    expect(vapid.renew('https://a.example')).toBe(false)
    const second = vapid.authorization('https://a.example')
    now += 120_000
    expect(vapid.renew('https://a.example')).toBe(true)
    now += 7 * 3_600_000
    const third = vapid.authorization('https://a.example')
    expect(new Set([first, second, third]).size).toBe(3)
  })
})
