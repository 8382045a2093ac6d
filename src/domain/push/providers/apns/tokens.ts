import { createHash, createPublicKey, type KeyObject } from 'node:crypto'
import type { Clock } from '../../../../core/clock.ts'
import { withLimit } from '../../../../core/lifecycle.ts'
import { signJwt } from '../jwt.ts'
import { createMemoryShelf, isFuture, type ShelvedToken, type TokenShelf } from './token-shelf.ts'

export interface ApnsKey {
  teamId: string
  keyId: string
  /** Private, of P-256. */
  key: KeyObject
}

/**
 * The token that tells Apple who sends: one for a team and key, for all processes. Apple refuses tokens older than an
 * hour, and senders that change theirs more than once in 20 minutes.
 */
export interface ApnsTokens {
  /** The token to send with. */
  current(): Promise<string>
  /** Apple refused this token. @returns how long to wait until there is another, ms: 0 when there is */
  refused(token: string): Promise<number>
  /** The time by the clock that tokens are made by, epoch ms: that of this machine may be wrong. */
  now(): number
  /** Apple says that tokens change too often: the one before comes back if it lives, and none is signed for a while. */
  hold(): void
}

export interface ApnsTokensOptions extends ApnsKey {
  clock: Clock
  shelf: TokenShelf
}

/** The least time between two tokens, ms. */
export const minTokenAgeMs = 20 * 60_000
/** A token is replaced at this age, ms, so that none reaches an hour on its way. */
export const renewAgeMs = 50 * 60_000
/** The age up to which a token is better than none, ms. */
const deadAgeMs = 59 * 60_000
/** Longest wait for each answer of the shelf, ms: a send has 10 s in all. */
const shelfWaitMs = 2_000

/** A token, and when it was made by our monotonic clock, which never jumps. */
interface Held {
  text: string
  bornMs: number
}

export function createApnsTokens(options: ApnsTokensOptions): ApnsTokens {
  const { clock } = options
  const name = nameOf(options)
  const shelf = withFallback(options.shelf, createMemoryShelf(clock))
  let held: Held | undefined
  let former: Held | undefined
  let holdUntilMs = 0
  /** What the shelf's clock shows more than our monotonic one, ms. */
  let aheadMs: number | undefined
  let flight: Promise<Held> | undefined

  const ageOf = (one: Held): number => clock.monotonicMs() - one.bornMs
  const hold = (token: ShelvedToken, now: number): Held => {
    const next = { text: token.text, bornMs: clock.monotonicMs() - (now - token.madeAt) }
    if (held && held.text !== next.text) former = held
    held = next
    return next
  }

  /** The shared token if it is younger than `maxAgeMs`, else a new one. */
  const take = async (maxAgeMs: number): Promise<Held> => {
    if (held && clock.monotonicMs() < holdUntilMs && ageOf(held) < deadAgeMs) return held
    const { now, token } = await shelf.get(name)
    aheadMs = now - clock.monotonicMs()
    if (token && now - token.madeAt < maxAgeMs && !isFuture(token, now)) return hold(token, now)
    const text = signProviderToken(options, now)
    return hold(await shelf.put(name, { text, madeAt: now }, minTokenAgeMs), now)
  }
  const taken = (maxAgeMs: number): Promise<Held> => {
    flight ??= take(maxAgeMs).finally(() => {
      flight = undefined
    })
    return flight
  }

  return {
    current: async () => (held && ageOf(held) < renewAgeMs ? held : await taken(renewAgeMs)).text,
    refused: async (token) => {
      if (held && held.text !== token) return 0
      holdUntilMs = 0
      const next = await taken(minTokenAgeMs)
      // Too young to be replaced: whatever is wrong, a further token may not cure it yet.
      return next.text === token ? Math.max(1_000, minTokenAgeMs - ageOf(next)) : 0
    },
    now: () => (aheadMs === undefined ? clock.now() : clock.monotonicMs() + aheadMs),
    hold: () => {
      holdUntilMs = clock.monotonicMs() + minTokenAgeMs
      if (former && ageOf(former) < deadAgeMs) held = former
    },
  }
}

/** @param now when it is made, epoch ms */
export const signProviderToken = ({ teamId, keyId, key }: ApnsKey, now: number): string =>
  signJwt({ alg: 'ES256', key, kid: keyId, claims: { iss: teamId, iat: Math.floor(now / 1_000) } })

/** Names the key itself too: an id that was given to another key must not bring back what the former one signed. */
function nameOf({ teamId, keyId, key }: ApnsKey): string {
  const spki = createPublicKey(key).export({ format: 'der', type: 'spki' })
  return `apns:${teamId}:${keyId}:${createHash('sha256').update(spki).digest('base64url').slice(0, 12)}`
}

/** A shelf that is away, or hangs, costs the sharing, not the sending. */
function withFallback(shelf: TokenShelf, own: TokenShelf): TokenShelf {
  return {
    get: (name) => withLimit(shelf.get(name), shelfWaitMs).catch(() => own.get(name)),
    put: async (name, token, minAgeMs) => {
      const shared = withLimit(shelf.put(name, token, minAgeMs), shelfWaitMs)
      const kept = await shared.catch(() => own.put(name, token, minAgeMs))
      await own.put(name, kept, 0)
      return kept
    },
  }
}
