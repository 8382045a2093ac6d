import { expect, it } from 'vitest'
import { createSystemClock } from '../../../../src/core/clock.ts'
import { isPublicAddress } from '../../../../src/domain/push/sender/address-safety.ts'
import { createHttpSender } from '../../../../src/domain/push/sender/http-sender.ts'
import { startPushService } from '../../../support/push-service.ts'

it.each([
  '127.0.0.1',
  '127.255.255.255',
  '10.1.2.3',
  '172.16.0.1',
  '172.31.255.255',
  '192.168.1.1',
  '169.254.169.254',
  '100.64.0.1',
  '100.100.100.200',
  '168.63.129.16',
  '0.0.0.0',
  '255.255.255.255',
  '224.0.0.1',
  '198.18.0.1',
  '192.0.0.192',
  '::',
  '::1',
  '::ffff:127.0.0.1',
  '::ffff:8.8.8.8',
  'fe80::1',
  'fe80::1%eth0',
  'fc00::1',
  'fd00:ec2::254',
  'ff02::1',
  '64:ff9b::7f00:1',
  '2002:7f00:1::',
  '2001:db8::1',
  '2001::1',
  'not an address',
  '',
])('refuses %s', (address) => {
  expect(isPublicAddress(address)).toBe(false)
})

it.each([
  '8.8.8.8',
  '1.1.1.1',
  '172.15.255.255',
  '172.32.0.1',
  '2606:4700::1111',
  '2a00:1450:4001:80b::200e',
])('lets %s through', (address) => {
  expect(isPublicAddress(address)).toBe(true)
})

it.each([
  'https://127.0.0.1',
  'https://localhost',
  'http://localhost',
  'https://2130706433',
  'https://0x7f.1',
  'https://[::1]',
  'https://[::ffff:7f00:1]',
  'http://127.1',
  'http://[fe80::1]',
])('sends nothing to %s', async (origin) => {
  const service = await startPushService(origin.startsWith('https') ? 'h2' : 'http')
  const sender = createHttpSender({ clock: createSystemClock(), allowPrivate: false })
  const url = new URL(`${origin}:${new URL(service.origin).port}/x`)
  const answer = await sender.post({ url, headers: {}, body: Buffer.from('x') }, 2_000)
  expect(answer).toMatchObject({ kind: 'refused', reason: expect.stringContaining('private') })
  expect(service.connections).toBe(0)
  await sender.close()
  await service.close()
})
