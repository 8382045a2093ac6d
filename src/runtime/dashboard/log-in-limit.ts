import { isIPv6 } from 'node:net'
import type { Clock } from '../../core/clock.ts'
import { LOG_IN_THROTTLED } from './errors.ts'

/** Slows down whoever guesses keys. Kept in this process: each further web process grants the same again. */
export interface LogInLimit {
  /** @throws LOG_IN_THROTTLED */
  assertRoom(address: string): void
  noteFailure(address: string): void
}

/** Wrong keys that an address may send at once. */
const burst = 5
/** And one more in each of these, ms. */
const intervalMs = 12_000
const mostAddresses = 10_000

export function createLogInLimit(clock: Clock): LogInLimit {
  /** For each address the monotonic time until which its failures are paid for (GCRA). */
  const paidUntil = new Map<string, number>()
  const debt = (address: string): number => Math.max(0, (paidUntil.get(address) ?? 0) - clock.monotonicMs())
  return {
    assertRoom: (address) => {
      const waitMs = debt(address) - (burst - 1) * intervalMs
      if (waitMs > 0) throw LOG_IN_THROTTLED({ seconds: Math.ceil(waitMs / 1_000) }, { retryAfterMs: waitMs })
    },
    noteFailure: (address) => {
      const until = clock.monotonicMs() + debt(address) + intervalMs
      // Moved to the end: the oldest goes first, and an attacker's address stays the youngest.
      paidUntil.delete(address)
      const [oldest] = paidUntil.keys()
      if (paidUntil.size >= mostAddresses && oldest !== undefined) paidUntil.delete(oldest)
      paidUntil.set(address, until)
    },
  }
}

const privateAddress =
  /^(?:::ffff:)?(?:10\.|127\.|192\.168\.|169\.254\.|172\.(?:1[6-9]|2\d|3[01])\.|100\.(?:6[4-9]|[7-9]\d|1[01]\d|12[0-7])\.)|^::1$|^f[cd]/i

/**
 * Where a request comes from. Behind a router every peer is the router: its own entry in X-Forwarded-For, the last,
 * counts then. From a public peer the header is not believed, since anybody can send it.
 */
export function addressOf(peer: string, forwardedFor: string | string[] | undefined): string {
  const last = [forwardedFor].flat().join(',').split(',').at(-1)?.trim()
  return networkOf(last && privateAddress.test(peer) ? last.slice(0, 64) : peer)
}

/** Of an IPv6 address its network: whoever has one address of a /64 has them all. */
function networkOf(address: string): string {
  if (isIPv6(address) === false || address.startsWith('::ffff:')) return address
  const [head = '', tail] = address.split('::')
  const groups = head === '' ? [] : head.split(':')
  const known = groups.length + (tail ? tail.split(':').length : 0)
  while (tail !== undefined && groups.length < 4 && known + groups.length < 8) groups.push('0')
  return `${groups.slice(0, 4).join(':')}::/64`
}
