import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../../src/core/clock.ts'
import { createMemoryShelf } from '../../../../src/domain/push/providers/apns/token-shelf.ts'
import { type ApnsTokens, createApnsTokens } from '../../../../src/domain/push/providers/apns/tokens.ts'
import { createApnsProvider } from '../../../../src/domain/push/providers/apns.ts'
import { createHttpSender } from '../../../../src/domain/push/sender/http-sender.ts'
import type { StoredTransport } from '../../../../src/domain/push/transport.ts'
import { exercisePushProvider, sampleMessage } from '../../../contracts/push-provider.ts'
import { apnsAccount, readJwt } from '../../../support/provider-accounts.ts'
import { type PushService, type Script, serviceCa, startPushService } from '../../../support/push-service.ts'

const clock = createSystemClock()
const timeoutMs = 1_500
const deviceToken = 'ab12'.repeat(16)
const account = apnsAccount()

const transport: StoredTransport = {
  kind: 'apns',
  address: deviceToken,
  options: { topic: 'com.example.app', environment: 'production' },
  position: 0,
  registeredAt: '',
}

function create(origin: string | undefined, tokens?: ApnsTokens) {
  const sender = createHttpSender({ clock, allowPrivate: true, ca: serviceCa, idleMs: 0 })
  const told: [string, unknown][] = []
  const provider = createApnsProvider({
    sender,
    tokens: tokens ?? createApnsTokens({ ...account, clock, shelf: createMemoryShelf(clock) }),
    clock,
    troubles: { tell: (message, error) => void told.push([message, error]) },
    timeoutMs,
    origin,
  })
  return { provider, transport, told, close: () => sender.close() }
}

const answer = (
  status: number,
  reason: string,
  more: { timestamp?: number; after?: string } = {},
): Script => ({
  status,
  headers: more.after === undefined ? {} : { 'retry-after': more.after },
  body: JSON.stringify({ reason, ...(more.timestamp === undefined ? {} : { timestamp: more.timestamp }) }),
})

exercisePushProvider('apns', {
  create,
  timeoutMs,
  language: {
    accepted: { status: 200 },
    gone: answer(410, 'Unregistered', { timestamp: 1_767_322_245_000 }),
    deviceLimited: (after) => answer(429, 'TooManyRequests', { after }),
    trouble: (after) => answer(503, 'ServiceUnavailable', { after }),
    refused: answer(400, 'BadDeviceToken'),
    identityOf: ({ headers }) => headers['apns-id'] ?? '',
  },
})

describe('APNs', () => {
  let service: PushService
  let made: ReturnType<typeof create>
  beforeAll(async () => {
    service = await startPushService()
  })
  afterAll(() => service.close())
  beforeEach(() => {
    made = create(service.origin)
    service.answer({ status: 200, headers: { 'apns-id': 'EC1BF194-B3B2-424A-89D9-5A918A6E6B5C' } })
    service.received.length = 0
    return () => made.close()
  })
  const send = (message = sampleMessage()) => made.provider.send(transport, message)

  it('gets the path, the headers and the fields that it demands, over HTTP/2', async () => {
    const before = Date.now()
    expect(await send()).toEqual({ kind: 'accepted', id: 'EC1BF194-B3B2-424A-89D9-5A918A6E6B5C' })
    const [received] = service.received
    const { headers, body, path, httpVersion } = received as NonNullable<typeof received>
    expect({ path, httpVersion }).toEqual({ path: `/3/device/${deviceToken}`, httpVersion: '2.0' })
    expect(headers).toMatchObject({
      'apns-id': sampleMessage().id,
      'apns-topic': 'com.example.app',
      'apns-push-type': 'background',
      'apns-priority': '5',
      authorization: expect.stringMatching(/^bearer [\w-]+\.[\w-]+\.[\w-]+$/),
    })
    expect(Buffer.byteLength(headers['apns-collapse-id'] ?? '')).toBeLessThanOrEqual(64)
    expect(Number(headers['apns-expiration']) * 1_000 - before).toBeGreaterThan(58_000)
    expect(Number(headers['apns-expiration']) * 1_000 - before).toBeLessThan(62_000)
    expect(readJwt((headers['authorization'] ?? '').slice(7)).claims['iss']).toBe(account.teamId)
    expect(JSON.parse(body.toString())).toEqual({
      aps: { 'content-available': 1 },
      id: sampleMessage().push.id,
      device: 'phone',
      topic: 'news',
      acceptedAt: '2026-01-02T03:04:05.678Z',
      payload: { text: 'hello' },
    })
  })

  it('is asked not to keep what has no time left', async () => {
    await send(sampleMessage({ ttlMs: 999 }))
    expect(service.received[0]?.headers['apns-expiration']).toBe('0')
  })

  it('keeps a push for its life with a clock that is a day off, by the clock that tokens are made by', async () => {
    const shelf = createMemoryShelf({ ...clock, now: () => clock.now() + 86_400_000 })
    const one = create(service.origin, createApnsTokens({ ...account, clock, shelf }))
    await one.provider.send(transport, sampleMessage())
    const { headers } = service.received[0] as NonNullable<(typeof service.received)[0]>
    const leftMs = Number(headers['apns-expiration']) * 1_000 - Date.now() - 86_400_000
    expect(leftMs).toBeGreaterThan(58_000)
    expect(leftMs).toBeLessThan(62_000)
    await one.close()
  })

  it('gets the same collapse id for the same key, and another for another', async () => {
    await send()
    await send(sampleMessage({ id: '0196d2f0-5c4e-7a3b-8c1d-000000000000' }))
    await send(sampleMessage({ collapse: 't:other' }))
    const [one, two, three] = service.received.map(({ headers }) => headers['apns-collapse-id'])
    expect(one).toBe(two)
    expect(three).not.toBe(one)
  })

  it.each([
    [400, 'BadDeviceToken', 'rejected', false],
    [400, 'DeviceTokenNotForTopic', 'rejected', false],
    [400, 'TopicDisallowed', 'rejected', true],
    [400, 'BadCollapseId', 'rejected', true],
    [400, 'PayloadEmpty', 'rejected', true],
    [400, 'IdleTimeout', 'retry', false],
    [403, 'ExpiredProviderToken', 'retry', true],
    [403, 'InvalidProviderToken', 'retry', true],
    [403, 'BadCertificateEnvironment', 'retry', true],
    [404, 'BadPath', 'rejected', true],
    [405, 'MethodNotAllowed', 'rejected', true],
    [410, 'Unregistered', 'gone', false],
    [410, 'ExpiredToken', 'gone', false],
    [413, 'PayloadTooLarge', 'rejected', true],
    [429, 'TooManyRequests', 'device-limited', false],
    [429, 'TooManyProviderTokenUpdates', 'retry', true],
    [500, 'InternalServerError', 'retry', false],
    [503, 'ServiceUnavailable', 'retry', false],
    [503, 'Shutdown', 'retry', false],
    // Never gone on a 5xx, whatever it says.
    [500, 'Unregistered', 'retry', false],
    [418, 'SomethingNew', 'rejected', false],
  ])('says %i %s: %s', async (status, reason, kind, tells) => {
    service.answer(answer(status, reason))
    expect(await send()).toMatchObject({ kind, reason: `${status} ${reason}` })
    expect(made.told.length > 0).toBe(tells)
    expect(JSON.stringify(made.told)).not.toMatch(new RegExp(`${deviceToken}|eyJ`))
    expect(service.received).toHaveLength(1)
  })

  it('tells since when a token is gone, if Apple does', async () => {
    service.answer(answer(410, 'Unregistered', { timestamp: 1_767_322_245_000 }))
    expect(await send()).toMatchObject({ kind: 'gone', at: 1_767_322_245_000 })
    service.answer({ status: 410, body: 'no JSON' })
    expect(await send()).toEqual({ kind: 'gone', reason: '410' })
  })

  it('leaves Apple alone for a quarter of an hour after a 5xx that names no time', async () => {
    service.answer({ status: 500 })
    const result = await send()
    expect('afterMs' in result && result.afterMs).toBeGreaterThanOrEqual(15 * 60_000)
    service.answer(answer(503, 'Shutdown'))
    const other = await send()
    expect('afterMs' in other && other.afterMs).toBeLessThan(5_000)
  })

  it('signs anew when its token expired, and goes on', async () => {
    const texts = ['a.a.old', 'a.a.new']
    const refused: string[] = []
    const tokens: ApnsTokens = {
      current: async () => texts[0] ?? '',
      refused: async (token) => {
        refused.push(token)
        texts.shift()
        return 0
      },
      now: () => 0,
      hold: () => undefined,
    }
    const one = create(service.origin, tokens)
    service.answer(({ headers }) =>
      headers['authorization'] === 'bearer a.a.new' ? { status: 200 } : answer(403, 'ExpiredProviderToken'),
    )
    expect(await one.provider.send(transport, sampleMessage())).toMatchObject({ kind: 'retry', afterMs: 100 })
    expect(await one.provider.send(transport, sampleMessage())).toMatchObject({ kind: 'accepted' })
    expect(refused).toEqual(['a.a.old'])
    await one.close()
  })

  it('keeps its token when it is refused too early, and waits', async () => {
    service.answer(answer(403, 'ExpiredProviderToken'))
    const result = await send()
    expect('afterMs' in result && result.afterMs).toBeGreaterThan(19 * 60_000)
    service.answer(answer(429, 'TooManyProviderTokenUpdates'))
    const other = await send()
    expect('afterMs' in other && other.afterMs).toBeGreaterThanOrEqual(5 * 60_000)
    expect(new Set(service.received.map(({ headers }) => headers['authorization'])).size).toBe(1)
  })

  it('says why Apple went away', async () => {
    service.answer('hang')
    const sending = send()
    while (service.received.length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
    service.goAway('{"reason":"BadCertificate"}', 2)
    expect(await sending).toMatchObject({ kind: 'retry', reason: expect.stringContaining('BadCertificate') })
    service.answer({ status: 200 })
    expect(await send()).toMatchObject({ kind: 'accepted' })
  })

  it('sends to the origin of the environment of the device', () => {
    const { provider } = create(undefined)
    const sandbox = { ...transport, options: { ...transport.options, environment: 'sandbox' } }
    expect(provider.scopeOf(transport)).toBe('apns https://api.push.apple.com')
    expect(provider.scopeOf(sandbox)).toBe('apns https://api.sandbox.push.apple.com')
  })
})
