import type { Clock } from '../../core/clock.ts'
import type { Provider, SendResult } from './provider.ts'

export interface GuardOptions {
  clock: Clock
  /** Sends under way at once to a scope that has not answered for a second; further ones are turned away. */
  maxWhenSlow: number
  /** Failures in a row that open the breaker of a scope. */
  failures: number
  /** First time that a breaker stays open, ms; doubled while the scope stays down, up to sixteen times. */
  openMs: number
}

interface Scope {
  inFlight: number
  /** When it last answered, or began to be asked. */
  quickAt: number
  failedInARow: number
  opened: number
  closedUntil: number
  probing: boolean
}

/** Without an answer for this long, a scope that is being asked counts as slow, ms. */
const slowMs = 1_000
/** Scopes of origins that nobody sends to any more are forgotten beyond this number. */
const maxScopes = 5_000

/**
 * Puts a bulkhead and a breaker round a provider, one for each scope: one that hangs or is down costs its own
 * pushes time, and nobody else's. What is turned away was never sent, so it comes again at no cost.
 */
export function createGuardedProvider(provider: Provider, options: GuardOptions): Provider {
  const { clock, maxWhenSlow, failures, openMs } = options
  const scopes = new Map<string, Scope>()

  const scopeFor = (name: string): Scope => {
    const known = scopes.get(name)
    if (known) return known
    if (scopes.size >= maxScopes) {
      for (const [each, scope] of scopes) if (scope.inFlight === 0) scopes.delete(each)
    }
    const scope: Scope = {
      inFlight: 0,
      quickAt: 0,
      failedInARow: 0,
      opened: 0,
      closedUntil: 0,
      probing: false,
    }
    scopes.set(name, scope)
    return scope
  }

  const turnAway = (scope: Scope): SendResult | undefined => {
    const now = clock.monotonicMs()
    if (scope.closedUntil > now || scope.probing) {
      // Spread, so that what waited does not come back in one wave.
      const afterMs = Math.max(scope.closedUntil - now, 200) + Math.random() * openMs
      return { kind: 'unsent', reason: 'the provider is down, and is asked again later', afterMs }
    }
    if (scope.inFlight >= maxWhenSlow && now - scope.quickAt > slowMs) {
      return { kind: 'unsent', reason: 'the provider is slow', afterMs: 200 + Math.random() * 800 }
    }
    return undefined
  }

  return {
    kind: provider.kind,
    maxBytes: provider.maxBytes,
    scopeOf: provider.scopeOf,
    send: async (transport, message) => {
      const scope = scopeFor(provider.scopeOf(transport))
      const refusal = turnAway(scope)
      if (refusal) return refusal
      if (scope.inFlight === 0) scope.quickAt = clock.monotonicMs()
      scope.inFlight += 1
      // After the pause one is let through; the rest waits for what becomes of it.
      scope.probing = scope.failedInARow >= failures
      let result: SendResult = { kind: 'retry', reason: 'the provider failed unexpectedly' }
      try {
        result = await provider.send(transport, message)
        return result
      } finally {
        settle(scope, result, options)
      }
    },
    close: () => provider.close(),
  }
}

/** What an answer says of the scope that gave it. */
function settle(scope: Scope, result: SendResult, { clock, failures, openMs }: GuardOptions): void {
  scope.inFlight -= 1
  scope.probing = false
  scope.quickAt = clock.monotonicMs()
  const failed = result.kind === 'retry' || result.kind === 'unsent'
  if (!failed) {
    scope.failedInARow = 0
    scope.opened = 0
    return
  }
  scope.failedInARow += 1
  if (scope.failedInARow < failures) return
  const pauseMs = Math.max(openMs * 2 ** Math.min(scope.opened, 4), Math.min(result.afterMs ?? 0, 60_000))
  if (scope.closedUntil <= clock.monotonicMs()) scope.opened += 1
  scope.closedUntil = clock.monotonicMs() + pauseMs
}
