import { createRequire } from 'node:module'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../../src/core/clock.ts'
import type { Provider } from '../../../../src/domain/push/provider.ts'
import { createVapid } from '../../../../src/domain/push/providers/webpush/vapid.ts'
import { createWebpushProvider } from '../../../../src/domain/push/providers/webpush.ts'
import { createHttpSender } from '../../../../src/domain/push/sender/http-sender.ts'
import type { StoredTransport } from '../../../../src/domain/push/transport.ts'
import { exercisePushProvider, sampleMessage } from '../../../contracts/push-provider.ts'
import { type PushService, serviceCa, startPushService } from '../../../support/push-service.ts'
import { browserKeys } from '../ground.ts'

interface HttpEce {
  decrypt(body: Buffer, options: { version: 'aes128gcm'; privateKey: unknown; authSecret: string }): Buffer
}
const ece = createRequire(import.meta.url)('http_ece') as HttpEce
const clock = createSystemClock()
const timeoutMs = 1_500
const browser = browserKeys()
const sign = browserKeys().ecdh

function create(origin: string) {
  const sender = createHttpSender({ clock, allowPrivate: true, ca: serviceCa })
  const vapid = createVapid(
    {
      subject: 'mailto:push@example.com',
      publicKey: sign.getPublicKey('base64url'),
      privateKey: sign.getPrivateKey('base64url'),
    },
    clock,
  )
  const provider: Provider = createWebpushProvider({ sender, vapid, clock, timeoutMs })
  const transport: StoredTransport = {
    kind: 'webpush',
    address: `${origin}/push/abc`,
    options: browser.keys,
    position: 0,
    registeredAt: '',
  }
  return { provider, transport, close: () => sender.close() }
}

exercisePushProvider('webpush', {
  create,
  timeoutMs,
  language: {
    accepted: { status: 201 },
    gone: { status: 410 },
    deviceLimited: (after) => ({ status: 429, headers: { 'retry-after': after } }),
    trouble: (after) => ({ status: 503, headers: { 'retry-after': after } }),
    refused: { status: 400 },
    identityOf: ({ headers }) => headers['topic'] ?? '',
  },
})

describe('Web Push', () => {
  let service: PushService
  let made: ReturnType<typeof create>
  beforeAll(async () => {
    service = await startPushService()
    made = create(service.origin)
  })
  afterAll(async () => {
    await made.close()
    await service.close()
  })
  beforeEach(() => {
    service.answer({ status: 201 })
    service.received.length = 0
  })
  const read = (body: Buffer): unknown =>
    JSON.parse(
      ece
        .decrypt(body, { version: 'aes128gcm', privateKey: browser.ecdh, authSecret: browser.auth })
        .toString(),
    )

  it('reaches the browser with what it needs, over HTTP/2', async () => {
    expect(await made.provider.send(made.transport, sampleMessage())).toEqual({
      kind: 'accepted',
      id: '/message/1',
    })
    const [received] = service.received
    const { headers, body, path, httpVersion } = received as NonNullable<typeof received>
    expect({ path, httpVersion }).toEqual({ path: '/push/abc', httpVersion: '2.0' })
    expect(headers).toMatchObject({
      ttl: '60',
      urgency: 'high',
      'content-encoding': 'aes128gcm',
      topic: expect.stringMatching(/^[\w-]{32}$/),
      authorization: expect.stringMatching(/^vapid t=[\w-]+\.[\w-]+\.[\w-]+, k=[\w-]{87}$/),
    })
    expect(read(body)).toEqual({
      id: sampleMessage().push.id,
      device: 'phone',
      topic: 'news',
      acceptedAt: '2026-01-02T03:04:05.678Z',
      payload: { text: 'hello' },
    })
  })

  it('says how many pushes it stands for, and leaves out what does not fit', async () => {
    const push = { ...sampleMessage().push, payload: JSON.stringify('x'.repeat(5_000)) }
    await made.provider.send(made.transport, sampleMessage({ count: 7, push }))
    expect(read(service.received[0]?.body ?? Buffer.alloc(0))).toMatchObject({ count: 7, truncated: true })
  })

  it.each([404, 410])('takes %i for an address that is gone', async (status) => {
    service.answer({ status })
    expect(await made.provider.send(made.transport, sampleMessage())).toMatchObject({ kind: 'gone' })
  })

  it('sends less where a service takes less than the standard promises', async () => {
    const small = await startPushService()
    const { provider, transport, close } = create(small.origin)
    small.answer(({ body }) => ({ status: body.length > 2_000 ? 413 : 201 }))
    const push = { ...sampleMessage().push, payload: JSON.stringify('x'.repeat(3_000)) }
    const kinds = []
    for (let turn = 0; turn < 3; turn += 1) {
      kinds.push((await provider.send(transport, sampleMessage({ push }))).kind)
    }
    expect(kinds).toEqual(['retry', 'accepted', 'accepted'])
    small.answer({ status: 413 })
    const last = []
    for (let turn = 0; turn < 3; turn += 1) last.push((await provider.send(transport, sampleMessage())).kind)
    expect(last.at(-1)).toBe('rejected')
    await close()
    await small.close()
  })

  it('speaks HTTP/1.1 with a service that has nothing newer', async () => {
    const old = await startPushService('https')
    const { provider, transport, close } = create(old.origin)
    for (let turn = 0; turn < 5; turn += 1) {
      expect(await provider.send(transport, sampleMessage())).toMatchObject({ kind: 'accepted' })
    }
    expect(old.received[0]?.httpVersion).toBe('1.1')
    // One to find out, which may be over before the service knows of it, and one that is kept.
    expect(old.connections).toBeLessThanOrEqual(2)
    old.answer('hang')
    expect(await provider.send(transport, sampleMessage())).toMatchObject({ kind: 'retry' })
    old.answer({ status: 429, headers: { 'retry-after': '3' } })
    expect(await provider.send(transport, sampleMessage())).toMatchObject({
      kind: 'device-limited',
      afterMs: 3_000,
    })
    await close()
    await old.close()
  })
})
