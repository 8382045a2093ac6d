import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { createProviders } from '../../../src/cli/compose/push-providers.ts'
import { createSystemClock } from '../../../src/core/clock.ts'
import { createReleasers } from '../../../src/core/lifecycle.ts'
import type { Provider } from '../../../src/domain/push/provider.ts'
import { allShards } from '../../../src/domain/push/shard.ts'
import type { Transport, TransportKind } from '../../../src/domain/push/transport.ts'
import { loadConfig } from '../../../src/platform/config/config.ts'
import { createLog } from '../../../src/platform/log.ts'
import { eventually } from '../../support/processes.ts'
import { apnsAccount, fcmAccount } from '../../support/provider-accounts.ts'
import { type PushService, startPushService } from '../../support/push-service.ts'
import { usePushGround } from './ground.ts'

const ground = usePushGround()
const clock = createSystemClock()
const releasers = createReleasers(() => undefined, 2_000)

let apple: PushService
let google: PushService
let providers: ReadonlyMap<TransportKind, Provider>

/** From the environment to the wire, as a worker has it; the services of the providers are played. */
beforeAll(async () => {
  apple = await startPushService('http')
  google = await startPushService('http')
  const { teamId, keyId, pem } = apnsAccount()
  const config = loadConfig({
    APNS_TEAM_ID: teamId,
    APNS_KEY_ID: keyId,
    APNS_KEY: pem.replaceAll('\n', '\\n'),
    APNS_ORIGIN: apple.origin,
    FCM_SERVICE_ACCOUNT: JSON.stringify(fcmAccount(`${google.origin}/token`).json),
    FCM_ORIGIN: google.origin,
  })
  const log = createLog({ level: 'silent', process: 'test' })
  providers = createProviders({ config, clock, log, postgres: ground().postgres, releasers })
})
afterAll(async () => {
  await releasers.release()
  await apple.close()
  await google.close()
})
beforeEach(() => {
  apple.received.length = 0
  google.received.length = 0
  apple.answer({ status: 200 })
  google.answer(({ path }) => ({
    status: 200,
    body: path === '/token' ? '{"access_token":"t","expires_in":3599}' : '{"name":"projects/p/messages/1"}',
  }))
})

const transports: Transport[] = [
  {
    kind: 'apns',
    address: 'ab'.repeat(32),
    options: { topic: 'com.example.app', environment: 'production' },
  },
  { kind: 'fcm', address: 'registration', options: {} },
]

async function sendTo(phone: string): Promise<string> {
  const { acceptance, push, worker, state } = ground()
  const one = push(phone, { confirmMs: 0, payload: '{"alert":"Tea"}' })
  await acceptance().accept([one])
  const sender = worker({ providers })
  await eventually(async () => {
    await sender.fire(allShards)
    expect(await state(one.id)).toBe('sent')
  })
  return one.id
}

const messages = (): string[] =>
  google.received.filter(({ path }) => path.endsWith(':send')).map(({ path }) => path)

it('reaches a device over FCM whose token Apple calls gone, and asks Apple no more', async () => {
  const { device, devices, pushes } = ground()
  const phone = await device(transports)
  apple.answer({ status: 410, body: `{"reason":"Unregistered","timestamp":${Date.now() + 60_000}}` })
  const log = await pushes.show(await sendTo(phone))
  expect(log?.devices[0]?.milestones).toEqual(
    expect.arrayContaining([
      expect.objectContaining({ name: 'gone', transport: 'apns', reason: '410 Unregistered' }),
      expect.objectContaining({ name: 'sent', transport: 'fcm', providerId: 'projects/p/messages/1' }),
    ]),
  )
  const buried = (await devices.get(phone))?.transports.map(({ kind, deadAt }) => [
    kind,
    deadAt !== undefined,
  ])
  expect(buried).toEqual([
    ['apns', true],
    ['fcm', false],
  ])
  await sendTo(phone)
  expect(apple.received).toHaveLength(1)
  expect(messages()).toHaveLength(2)
})

it('keeps a token that was registered after the time since when Apple calls it gone', async () => {
  const { device, devices } = ground()
  const phone = await device(transports)
  apple.answer({ status: 410, body: `{"reason":"Unregistered","timestamp":${Date.now() - 3_600_000}}` })
  await sendTo(phone)
  expect(messages()).toHaveLength(1)
  expect((await devices.get(phone))?.transports[0]?.deadAt).toBeUndefined()
})

it('goes on to FCM at once when Apple does not take the key, and buries nothing', async () => {
  const { device, devices } = ground()
  const phone = await device(transports)
  apple.answer({ status: 403, body: '{"reason":"InvalidProviderToken"}' })
  await sendTo(phone)
  expect(messages()).toHaveLength(1)
  expect((await devices.get(phone))?.transports[0]?.deadAt).toBeUndefined()
})

it('sends with the id of the delivery log, so that a repetition can be told', async () => {
  const { device, pushes } = ground()
  const log = await pushes.show(await sendTo(await device(transports)))
  const claimed = log?.devices[0]?.milestones.find(({ name }) => name === 'claimed')
  expect(apple.received[0]?.headers).toMatchObject({
    'apns-id': claimed?.['sendId'],
    'apns-push-type': 'alert',
  })
  expect(claimed?.['sendId']).toMatch(/^[0-9a-f-]{36}$/)
  expect(messages()).toEqual([])
})
