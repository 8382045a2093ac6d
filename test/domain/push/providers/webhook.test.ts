import { createHmac } from 'node:crypto'
import { expect, it } from 'vitest'
import { createSystemClock } from '../../../../src/core/clock.ts'
import { createWebhookProvider, signatureHeaders } from '../../../../src/domain/push/providers/webhook.ts'
import { createHttpSender } from '../../../../src/domain/push/sender/http-sender.ts'
import type { StoredTransport } from '../../../../src/domain/push/transport.ts'
import { exercisePushProvider, sampleMessage } from '../../../contracts/push-provider.ts'
import { serviceCa, startPushService } from '../../../support/push-service.ts'

const clock = createSystemClock()
const timeoutMs = 1_500
const secret = `whsec_${Buffer.from('a secret of the receiver').toString('base64')}`

function create(origin: string) {
  const sender = createHttpSender({ clock, allowPrivate: true, ca: serviceCa })
  const transport: StoredTransport = {
    kind: 'webhook',
    address: `${origin}/hook?a=1`,
    options: { secret },
    position: 0,
    registeredAt: '',
  }
  const provider = createWebhookProvider({ sender, clock, timeoutMs })
  return { provider, transport, close: () => sender.close() }
}

exercisePushProvider('webhook', {
  create,
  timeoutMs,
  language: {
    accepted: { status: 204 },
    gone: { status: 410 },
    deviceLimited: (after) => ({ status: 429, headers: { 'retry-after': after } }),
    trouble: (after) => ({ status: 503, headers: { 'retry-after': after } }),
    refused: { status: 400 },
    identityOf: ({ headers }) => headers['webhook-id'] ?? '',
  },
})

it('is signed so that the receiver can check it', async () => {
  const service = await startPushService('http')
  const { provider, transport, close } = create(service.origin)
  await provider.send(transport, sampleMessage())
  const [received] = service.received
  const { headers, body } = received as NonNullable<typeof received>
  const mac = createHmac('sha256', 'a secret of the receiver')
    .update(`${headers['webhook-id']}.${headers['webhook-timestamp']}.${body.toString()}`)
    .digest('base64')
  expect(headers['webhook-signature']).toBe(`v1,${mac}`)
  expect(JSON.parse(body.toString())).toMatchObject({
    type: 'push',
    data: { id: sampleMessage().push.id, payload: { text: 'hello' } },
  })
  await close()
  await service.close()
})

it('signs as the example of standardwebhooks.com does', () => {
  const headers = signatureHeaders(
    'msg_p5jXN8AQM9LWM0D4loKWxJek',
    1_614_265_330,
    Buffer.from('{"test": 2432232314}'),
    'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw',
  )
  expect(headers['webhook-signature']).toBe('v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=')
})

it('follows no redirect', async () => {
  const service = await startPushService()
  service.answer({ status: 302, headers: { location: 'http://169.254.169.254/' } })
  const { provider, transport, close } = create(service.origin)
  expect(await provider.send(transport, sampleMessage())).toMatchObject({ kind: 'rejected' })
  await close()
  await service.close()
})
