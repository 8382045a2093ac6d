import type { BackoffOptions } from '../../core/backoff.ts'
import type { ClaimedSend } from './claim-rows.ts'
import type { Mark } from './mark-rows.ts'
import type { SendResult } from './provider.ts'

const backoff: BackoffOptions = { baseMs: 2_000, maxMs: 15 * 60_000 }
/** What a provider may make us wait at most, ms. */
const maxRetryAfterMs = 60 * 60_000
/** With another transport behind it, one that fails this often, or for this long, is given up. */
const maxAttemptsBeforeNext = 4
const maxWaitBeforeNextMs = 60_000
/** Nothing could be sent so often: with the pauses of a breaker, for one or two minutes. */
const maxUnsentBeforeNext = 12
/** A transport that has failed this often is as good as dead for this push. */
const maxAttempts = 30

/** What a provider's answer means for the rows: how long to wait, and when to go on to the next transport. */
export function markOf(
  send: ClaimedSend,
  result: SendResult,
  backoffMs: (retry: number, options: BackoffOptions) => number,
): Mark {
  switch (result.kind) {
    case 'accepted':
      return { kind: 'sent', providerId: result.id }
    case 'gone':
      return { kind: 'gone', reason: result.reason, goneAt: result.at }
    case 'rejected':
      return { kind: 'rejected', reason: result.reason }
    case 'unsent':
      return unsentMark(send, result.reason, clamp(result.afterMs ?? backoffMs(1, backoff)))
    case 'retry':
    case 'device-limited': {
      const waitMs = clamp(result.afterMs ?? backoffMs(send.attempt, backoff))
      const reason = result.kind === 'retry' ? result.reason : `the device is limited: ${result.reason}`
      const givenUp = send.attempt >= maxAttempts || (send.hasNext && isLong(send.attempt, waitMs))
      return givenUp ? { kind: 'rejected', reason } : { kind: 'retry', reason, waitMs }
    }
  }
}

function unsentMark({ hasNext, unsent }: ClaimedSend, reason: string, waitMs: number): Mark {
  const givenUp = hasNext && unsent >= maxUnsentBeforeNext
  return givenUp ? { kind: 'rejected', reason } : { kind: 'unsent', reason, waitMs }
}

const clamp = (waitMs: number): number => Math.min(Math.max(waitMs, 50), maxRetryAfterMs)

const isLong = (attempt: number, waitMs: number): boolean =>
  attempt >= maxAttemptsBeforeNext || waitMs > maxWaitBeforeNextMs
