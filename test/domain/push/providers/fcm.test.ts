import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../../src/core/clock.ts'
import { createFcmAccess } from '../../../../src/domain/push/providers/fcm/access.ts'
import { createFcmProvider } from '../../../../src/domain/push/providers/fcm.ts'
import { createHttpSender } from '../../../../src/domain/push/sender/http-sender.ts'
import type { StoredTransport } from '../../../../src/domain/push/transport.ts'
import { exercisePushProvider, sampleMessage } from '../../../contracts/push-provider.ts'
import { fcmAccount, startTokenService, type TokenService } from '../../../support/provider-accounts.ts'
import { type PushService, type Script, serviceCa, startPushService } from '../../../support/push-service.ts'
import { createTurnedClock } from '../../../support/turned-clock.ts'

const clock = createSystemClock()
const timeoutMs = 1_500
const registration = 'fR3gTok3n:APA91bE-secret'
const { account } = fcmAccount('')

const transport: StoredTransport = {
  kind: 'fcm',
  address: registration,
  options: {},
  position: 0,
  registeredAt: '',
}

let tokens: TokenService
beforeAll(async () => {
  tokens = await startTokenService()
})
afterAll(() => tokens.service.close())

function create(origin: string, tokenClock = clock) {
  const sender = createHttpSender({ clock, allowPrivate: true, ca: serviceCa })
  const told: [string, unknown][] = []
  const provider = createFcmProvider({
    sender,
    access: createFcmAccess({
      sender,
      account: { ...account, tokenUri: tokens.uri },
      clock: tokenClock,
      timeoutMs,
    }),
    projectId: account.projectId,
    clock,
    troubles: { tell: (message, error) => void told.push([message, error]) },
    timeoutMs,
    origin,
  })
  return { provider, transport, told, close: () => sender.close() }
}

const types = {
  fcm: 'type.googleapis.com/google.firebase.fcm.v1.FcmError',
  bad: 'type.googleapis.com/google.rpc.BadRequest',
  quota: 'type.googleapis.com/google.rpc.QuotaFailure',
  info: 'type.googleapis.com/google.rpc.ErrorInfo',
}

interface Said {
  status: number
  name: string
  code?: string
  message?: string
  details?: object[]
  after?: string
}

const say = ({ status, name, code, message = 'no', details = [], after }: Said): Script => ({
  status,
  headers: after === undefined ? {} : { 'retry-after': after },
  body: JSON.stringify({
    error: {
      code: status,
      message,
      status: name,
      details: [...(code === undefined ? [] : [{ '@type': types.fcm, errorCode: code }]), ...details],
    },
  }),
})

const fields = (...names: string[]): object => ({
  '@type': types.bad,
  fieldViolations: names.map((field) => ({ field, description: 'is wrong' })),
})
const quota = (description: string): object => ({
  '@type': types.quota,
  violations: [{ subject: 'messages', description }],
})

const deviceQuota = { status: 429, name: 'RESOURCE_EXHAUSTED', code: 'QUOTA_EXCEEDED' }

exercisePushProvider('fcm', {
  create,
  timeoutMs,
  language: {
    accepted: { status: 200, body: '{"name":"projects/project-1/messages/0:1"}' },
    gone: say({ status: 404, name: 'NOT_FOUND', code: 'UNREGISTERED' }),
    deviceLimited: (after) =>
      say({ ...deviceQuota, details: [quota('Device message rate exceeded')], after }),
    trouble: (after) => say({ status: 503, name: 'UNAVAILABLE', code: 'UNAVAILABLE', after }),
    refused: say({ status: 403, name: 'PERMISSION_DENIED', code: 'SENDER_ID_MISMATCH' }),
    identityOf: ({ body }) =>
      (JSON.parse(body.toString()) as { message: { data: { send: string } } }).message.data.send,
  },
})

describe('FCM', () => {
  let service: PushService
  let made: ReturnType<typeof create>
  beforeAll(async () => {
    service = await startPushService()
  })
  afterAll(() => service.close())
  beforeEach(() => {
    made = create(service.origin)
    service.answer({
      status: 200,
      body: '{\n  "name": "projects/project-1/messages/0:1500415314455276%31bd1c96"\n}',
    })
    service.received.length = 0
    return () => made.close()
  })
  const send = (message = sampleMessage()) => made.provider.send(transport, message)
  const sent = (at = 0) =>
    (JSON.parse(service.received[at]?.body.toString() ?? '{}') as { message: Record<string, never> }).message

  it('gets data alone, every value a text, over HTTP/2', async () => {
    expect(await send(sampleMessage({ count: 3 }))).toEqual({
      kind: 'accepted',
      id: 'projects/project-1/messages/0:1500415314455276%31bd1c96',
    })
    const [received] = service.received
    expect(received).toMatchObject({
      path: '/v1/projects/project-1/messages:send',
      httpVersion: '2.0',
      headers: { authorization: `Bearer access-${tokens.given}`, 'content-type': 'application/json' },
    })
    expect(sent()).toEqual({
      token: registration,
      data: {
        id: sampleMessage().push.id,
        device: 'phone',
        send: sampleMessage().id,
        topic: 'news',
        count: '3',
        acceptedAt: '2026-01-02T03:04:05.678Z',
        payload: '{"text":"hello"}',
      },
      android: { priority: 'HIGH', collapse_key: expect.stringMatching(/^baton-[0-3]$/), ttl: '60s' },
      apns: { headers: { 'apns-priority': '5' }, payload: { aps: { 'content-available': 1 } } },
    })
  })

  it('has four collapse keys at most, since a device loses messages of a fifth', async () => {
    for (let turn = 0; turn < 40; turn += 1) await send(sampleMessage({ collapse: `t:${turn}` }))
    await send(sampleMessage({ collapse: 't:0' }))
    const keys = service.received.map((_none, at) => sent(at)['android']?.['collapse_key'])
    expect(new Set(keys).size).toBe(4)
    expect(keys.at(-1)).toBe(keys[0])
  })

  it('goes without a payload that does not fit to the byte', async () => {
    const dataOf = async (length: number): Promise<Record<string, string>> => {
      service.received.length = 0
      await send(
        sampleMessage({ push: { ...sampleMessage().push, payload: JSON.stringify('é'.repeat(length)) } }),
      )
      return sent()['data'] as unknown as Record<string, string>
    }
    const bytes = (data: Record<string, string>): number =>
      Buffer.byteLength(Object.entries(data).flat().join(''))
    const room = Math.floor((4_000 - bytes(await dataOf(0))) / 2)
    const whole = await dataOf(room)
    expect(whole).toHaveProperty('payload')
    expect(bytes(whole)).toBeLessThanOrEqual(4_000)
    const bare = await dataOf(room + 1)
    expect(bare).not.toHaveProperty('payload')
    expect(bare['truncated']).toBe('true')
  })

  it('keeps no message for longer than FCM does', async () => {
    await send(sampleMessage({ ttlMs: 100 * 86_400_000 }))
    await send(sampleMessage({ ttlMs: 900 }))
    expect([sent(0)['android']?.['ttl'], sent(1)['android']?.['ttl']]).toEqual(['2419200s', '0s'])
  })

  const invalid = { status: 400, name: 'INVALID_ARGUMENT', code: 'INVALID_ARGUMENT' }
  const badToken = 'The registration token is not a valid FCM registration token'
  const { code: _code, ...invalidWithoutCode } = invalid
  it.each<[string, Said, string, boolean]>([
    [
      'a token that is not registered',
      { status: 404, name: 'NOT_FOUND', code: 'UNREGISTERED' },
      'gone',
      false,
    ],
    ['a project that does not exist', { status: 404, name: 'NOT_FOUND' }, 'rejected', true],
    ['a malformed token', { ...invalid, message: badToken }, 'gone', false],
    ['a malformed token by its field', { ...invalid, details: [fields('message.token')] }, 'gone', false],
    [
      'a wrong field',
      { ...invalid, message: badToken, details: [fields('message.token', 'message.android')] },
      'rejected',
      true,
    ],
    ['a message that is too big', { ...invalid, message: 'Android message is too big' }, 'rejected', true],
    ['no FcmError', { ...invalidWithoutCode, message: badToken }, 'rejected', true],
    [
      'another sender',
      { status: 403, name: 'PERMISSION_DENIED', code: 'SENDER_ID_MISMATCH' },
      'rejected',
      false,
    ],
    ['an account without rights', { status: 403, name: 'PERMISSION_DENIED' }, 'retry', true],
    [
      'a project without a key for iOS',
      { status: 401, name: 'UNAUTHENTICATED', code: 'THIRD_PARTY_AUTH_ERROR' },
      'rejected',
      true,
    ],
    ['a new token that is refused', { status: 401, name: 'UNAUTHENTICATED' }, 'retry', true],
    [
      'a limit of the device',
      { ...deviceQuota, message: 'Device message rate exceeded' },
      'device-limited',
      false,
    ],
    ['a limit of unknown kind', deviceQuota, 'retry', false],
    [
      'a limit of the project',
      {
        status: 429,
        name: 'RESOURCE_EXHAUSTED',
        message: "Quota exceeded for consumer 'project_number:1' (by device)",
        details: [{ '@type': types.info, reason: 'RATE_LIMIT_EXCEEDED' }],
      },
      'retry',
      false,
    ],
    ['an outage', { status: 503, name: 'UNAVAILABLE', code: 'UNAVAILABLE' }, 'retry', false],
    ['an error of its own', { status: 500, name: 'INTERNAL', code: 'INTERNAL' }, 'retry', false],
  ])('says %s', async (_what, said, kind, tells) => {
    service.answer(say(said))
    const result = await send()
    expect(result.kind).toBe(kind)
    expect(made.told.length > 0).toBe(tells)
    expect(JSON.stringify([result, made.told])).not.toMatch(/secret|access-/)
    expect(service.received).toHaveLength(1)
  })

  it('leaves a project alone for a minute that sends too much, and for as long as FCM asks', async () => {
    service.answer(say(deviceQuota))
    const result = await send()
    expect('afterMs' in result && result.afterMs).toBeGreaterThanOrEqual(60_000)
    service.answer(say({ ...deviceQuota, after: '90' }))
    expect(await send()).toMatchObject({ kind: 'retry', afterMs: 90_000 })
  })

  it('gets another access token when FCM refuses one that it took before', async () => {
    const turned = createTurnedClock(Date.now())
    const one = create(service.origin, turned)
    await one.provider.send(transport, sampleMessage())
    const first = service.received[0]?.headers['authorization']
    service.answer(({ headers }) =>
      headers['authorization'] === first ? say({ status: 401, name: 'UNAUTHENTICATED' }) : { status: 200 },
    )
    turned.pass(120_000)
    expect(await one.provider.send(transport, sampleMessage())).toMatchObject({ kind: 'retry', afterMs: 100 })
    expect(await one.provider.send(transport, sampleMessage())).toMatchObject({ kind: 'accepted' })
    expect(one.told).toEqual([])
    await one.close()
  })

  it('asks nothing of FCM without an access token, and tells who has to look', async () => {
    tokens.service.answer({ status: 400, body: '{"error":"invalid_grant"}' })
    expect(await send()).toMatchObject({ kind: 'retry', reason: expect.stringContaining('invalid_grant') })
    expect(service.received).toEqual([])
    expect(made.told[0]?.[0]).toContain('FCM_SERVICE_ACCOUNT')
  })
})
