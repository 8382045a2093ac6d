import { hash } from 'node:crypto'
import { createBatcher } from '../../core/batcher.ts'
import type { Clock } from '../../core/clock.ts'
import { BatonError, messageOf } from '../../core/errors.ts'
import { withLimit } from '../../core/lifecycle.ts'
import type { Authenticator, KeyStore, Principal, Role } from '../access.ts'
import { DATABASE_OVERLOADED, DATABASE_UNAVAILABLE } from '../postgres/errors.ts'
import { isKey } from './key-form.ts'

export interface AuthenticatorOptions {
  keys: Pick<KeyStore, 'find'>
  clock: Clock
  /** `role:key` each, from the environment. */
  environmentKeys: readonly string[]
}

interface Held {
  principal: Principal
  /** When the look at the database began; what it said may be that old. */
  readAt: number
}

/** A revoked key must stop within 5 s: what is older than this is not believed any more. */
const believedMs = 4_000
/** A key in use is read again before it is due, so that no request of it waits. */
const refreshAfterMs = 2_000
const missBelievedMs = 1_000
const mostHeld = 10_000
const mostMisses = 2_000
const mostLookups = 2_000
const lookupLimitMs = 3_000

/**
 * Keeps what the database said of a key for a few seconds: a look-up for every request would double the
 * statements of the acceptance path. Unknown keys are kept for a second and in a bounded number, so that a
 * flood of guesses costs neither memory nor connections.
 */
export function createAuthenticator(options: AuthenticatorOptions): Authenticator {
  const { keys, clock } = options
  const fixed = environmentPrincipals(options.environmentKeys)
  const held = new Map<string, Held>()
  const misses = new Map<string, number>()

  const lookups = createBatcher<string, Principal | undefined>({
    maxItems: 500,
    run: async (hashes) => {
      const readAt = clock.monotonicMs()
      const found = await keys.find([...new Set(hashes)])
      for (const each of hashes) remember(each, found.get(each), readAt)
      return hashes.map((each) => found.get(each))
    },
  })

  const remember = (keyHash: string, principal: Principal | undefined, readAt: number): void => {
    held.delete(keyHash)
    misses.delete(keyHash)
    if (principal) put(held, mostHeld, keyHash, { principal, readAt })
    else put(misses, mostMisses, keyHash, readAt)
  }

  const lookUp = async (keyHash: string): Promise<Principal | undefined> => {
    if (lookups.pending >= mostLookups) {
      throw DATABASE_OVERLOADED({ reason: 'too many API keys are being looked up' }, { retryAfterMs: 1_000 })
    }
    return withLimit(lookups.add(keyHash), lookupLimitMs).catch((error: unknown) => {
      if (error instanceof BatonError) throw error
      throw DATABASE_UNAVAILABLE({ reason: messageOf(error) }, { cause: error })
    })
  }

  /** @param couldBe whether it is worth a look at the database */
  const identify = (keyHash: string, couldBe: () => boolean): ReturnType<Authenticator['authenticate']> => {
    const known = fixed.get(keyHash)
    if (known) return known
    const now = clock.monotonicMs()
    const entry = held.get(keyHash)
    if (entry && now - entry.readAt < believedMs) {
      if (now - entry.readAt >= refreshAfterMs && lookups.pending === 0) {
        // A failure shows itself to the request that finds the entry too old.
        lookUp(keyHash).catch(() => undefined)
      }
      return entry.principal
    }
    if (!couldBe()) return undefined
    const missedAt = misses.get(keyHash)
    if (missedAt !== undefined && now - missedAt < missBelievedMs) return undefined
    return lookUp(keyHash)
  }

  return {
    authenticate: (key) => identify(hash('sha256', key), () => isKey(key)),
    authenticateHash: (keySha256) => identify(keySha256, () => true),
  }
}

/** Keys of the environment by their hash. */
function environmentPrincipals(entries: readonly string[]): Map<string, Principal> {
  const principals = new Map<string, Principal>()
  for (const entry of entries) {
    const colon = entry.indexOf(':')
    const role = entry.slice(0, colon) as Role
    const keyHash = hash('sha256', entry.slice(colon + 1))
    const mark = keyHash.slice(0, 16)
    principals.set(keyHash, { owner: `environment:${mark}`, name: `BATON_API_KEYS ${role}`, role })
  }
  return principals
}

/** Adds to a map of bounded size; the oldest entry goes first. */
function put<K, V>(map: Map<K, V>, most: number, key: K, value: V): void {
  if (map.size >= most) {
    const [oldest] = map.keys()
    if (oldest !== undefined) map.delete(oldest)
  }
  map.set(key, value)
}
