import { createECDH, randomBytes } from 'node:crypto'
import { createRequire } from 'node:module'
import { createSystemClock } from '../../src/core/clock.ts'
import { encrypt } from '../../src/domain/push/providers/webpush/encrypt.ts'
import { createVapid } from '../../src/domain/push/providers/webpush/vapid.ts'
import { type Measure, median, rate } from './result.ts'

export interface Subscription {
  endpoint: string
  keys: { p256dh: string; auth: string }
}

export interface VapidPair {
  subject: string
  publicKey: string
  privateKey: string
}

interface WebPush {
  generateRequestDetails(
    subscription: Subscription,
    payload: string,
    options: { TTL: number; vapidDetails: VapidPair },
  ): unknown
}

export const payload = JSON.stringify({ title: 'Bench', text: 'x'.repeat(200) })
const perRound = 600
const rounds = 7

export function vapidPair(): VapidPair {
  const ecdh = createECDH('prime256v1')
  ecdh.generateKeys()
  return {
    subject: 'mailto:bench@example.com',
    publicKey: ecdh.getPublicKey('base64url'),
    privateKey: ecdh.getPrivateKey('base64url'),
  }
}

export function subscriptions(count: number, origin: string): Subscription[] {
  return Array.from({ length: count }, (_none, n) => {
    const ecdh = createECDH('prime256v1')
    return {
      endpoint: `${origin}/push/${n}`,
      keys: { p256dh: ecdh.generateKeys('base64url'), auth: randomBytes(16).toString('base64url') },
    }
  })
}

/** Encrypts and signs the same messages in turns; counted in processor time, so that threads hide nothing. */
export async function measureCrypto(): Promise<Measure> {
  const webpush = createRequire(import.meta.url)('web-push') as WebPush
  const vapidDetails = vapidPair()
  const vapid = createVapid(vapidDetails, createSystemClock())
  const all = subscriptions(perRound, 'https://push.example.net')
  const theirs = async (): Promise<void> => {
    for (const each of all) webpush.generateRequestDetails(each, payload, { TTL: 60, vapidDetails })
  }
  const ours = async (): Promise<void> => {
    for (let from = 0; from < all.length; from += 100) {
      await Promise.all(all.slice(from, from + 100).map((each) => sealOne(each)))
    }
  }
  const sealOne = async ({ endpoint, keys }: Subscription): Promise<void> => {
    vapid.authorization(new URL(endpoint).origin)
    const raw = { p256dh: Buffer.from(keys.p256dh, 'base64url'), auth: Buffer.from(keys.auth, 'base64url') }
    await encrypt(raw, Buffer.from(payload))
  }
  await theirs()
  await ours()
  const rates: { ours: number[]; theirs: number[]; wall: number[] } = { ours: [], theirs: [], wall: [] }
  for (let round = 0; round < rounds; round++) {
    rates.theirs.push((await measure(theirs)).perCoreSecond)
    const mine = await measure(ours)
    rates.ours.push(mine.perCoreSecond)
    rates.wall.push(mine.perSecond)
  }
  return rate('encrypt and sign a Web Push, per core', median(rates.ours), median(rates.theirs), {
    aim: 4,
    note: `${Math.round(median(rates.wall))}/s in one process by the clock on the wall`,
  })
}

async function measure(work: () => Promise<void>): Promise<{ perCoreSecond: number; perSecond: number }> {
  const cpu = process.cpuUsage()
  const startedAt = performance.now()
  await work()
  const { user, system } = process.cpuUsage(cpu)
  return {
    perCoreSecond: (perRound * 1e6) / (user + system),
    perSecond: (perRound * 1e3) / (performance.now() - startedAt),
  }
}
