import { expect, test } from 'vitest'
import { atEndOfTest, eventually } from '../support/processes.ts'
import { apnsAccount, fcmAccount } from '../support/provider-accounts.ts'
import { type PushService, serviceCaFile, startPushService } from '../support/push-service.ts'
import { openPushSite } from '../support/push-site.ts'

// A worker with two processes sends to Apple and Google, whose services are played over TLS and HTTP/2.

const deviceToken = 'c0ffee'.repeat(10)
const registration = 'registration-secret:APA91b'
const topic = 'com.example.app'

async function begin() {
  const [apple, google] = await Promise.all([startPushService(), startPushService()])
  atEndOfTest(async () => {
    await apple.close()
    await google.close()
  })
  const apns = apnsAccount()
  const { json } = fcmAccount(`${google.origin}/token`)
  const site = await openPushSite('redis', {
    APNS_TEAM_ID: apns.teamId,
    APNS_KEY_ID: apns.keyId,
    APNS_KEY: apns.pem,
    APNS_ORIGIN: apple.origin,
    FCM_SERVICE_ACCOUNT: JSON.stringify(json),
    FCM_ORIGIN: google.origin,
    NODE_EXTRA_CA_CERTS: serviceCaFile,
    WORKER_PROCESSES: '2',
    FLOOD_BURST: '1000',
  })
  apple.answer({ status: 200 })
  google.answer(({ path }) => ({
    status: 200,
    body:
      path === '/token'
        ? '{"access_token":"access-secret","expires_in":3599}'
        : '{"name":"projects/p/messages/1"}',
  }))
  const [web, worker] = await Promise.all([site.startWeb(), site.startWorker({ LOG_LEVEL: 'trace' })])
  return { apple, google, apns, json, web, worker, site }
}

const bearers = (service: PushService): Set<string> =>
  new Set(service.received.map(({ headers }) => headers['authorization'] ?? ''))

test('a worker sends over APNs with one token for all its processes, goes on to FCM, and logs no secret', async () => {
  const { apple, google, apns, json, web, worker } = await begin()
  const send = async (count: number, more: object = {}): Promise<string[]> => {
    const pushes = Array.from({ length: count }, (_none, at) => ({
      to: { device: `phone-${at}` },
      payload: { alert: 'Tea', at },
      priority: 'priority',
      confirmMs: 0,
      ...more,
    }))
    const answer = await web.call('POST', '/v1/pushes', { body: pushes })
    expect(answer.status).toBe(202)
    return answer.json<{ pushes: { id: string }[] }>().pushes.map(({ id }) => id)
  }
  const milestones = async (id: string) =>
    (await web.call('GET', `/v1/pushes/${id}`)).json<{
      devices: { state: string; milestones: { name: string; transport?: string; reason?: string }[] }[]
    }>().devices[0]

  for (let at = 0; at < 40; at += 1) {
    const transports = [
      { kind: 'apns', token: deviceToken + at.toString(16).padStart(2, '0'), topic, environment: 'sandbox' },
      { kind: 'fcm', token: `${registration}-${at}` },
    ]
    const { status } = await web.call('PUT', `/v1/devices/phone-${at}`, { body: { transports } })
    expect(status).toBe(200)
  }
  for (let round = 1; round <= 5; round += 1) {
    await send(40)
    await eventually(async () => expect(apple.received).toHaveLength(round * 40), { timeoutMs: 30_000 })
  }
  expect(bearers(apple).size).toBe(1)
  // One session for each process, whatever it sends.
  expect(apple.connections).toBeLessThanOrEqual(2)
  expect(apple.received.every(({ httpVersion }) => httpVersion === '2.0')).toBe(true)
  expect(google.received).toEqual([])

  apple.answer({ status: 410, body: `{"reason":"Unregistered","timestamp":${Date.now() + 60_000}}` })
  const ids = await send(40)
  await eventually(
    async () => {
      for (const id of ids) expect((await milestones(id))?.state).toBe('sent')
    },
    { timeoutMs: 30_000 },
  )
  const log = await milestones(ids[0] ?? '')
  expect(log?.milestones.filter(({ name }) => name === 'gone' || name === 'sent')).toEqual([
    expect.objectContaining({ name: 'gone', transport: 'apns', reason: '410 Unregistered' }),
    expect.objectContaining({ name: 'sent', transport: 'fcm' }),
  ])
  const asked = google.received.filter(({ path }) => path === '/token').length
  expect(asked).toBeLessThanOrEqual(2)
  expect(google.received.length - asked).toBe(40)

  // What only people can mend is told, and without what is secret.
  google.answer({ status: 403, body: '{"error":{"status":"PERMISSION_DENIED","message":"no"}}' })
  await send(1)
  await eventually(async () => expect(worker.lines.join('\n')).toContain('FCM_SERVICE_ACCOUNT'), {
    timeoutMs: 30_000,
  })
  const lines = worker.lines.join('\n')
  const secrets = [
    deviceToken,
    registration,
    'access-secret',
    'eyJ',
    apns.pem.split('\n')[1],
    json.private_key.split('\n')[1],
  ]
  for (const secret of secrets) expect(lines).not.toContain(secret)
})
