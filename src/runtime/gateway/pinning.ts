import type { IncomingMessage } from 'node:http'
import type { Log } from '../../platform/log.ts'
import type { Metrics } from '../../platform/metrics.ts'
import { sessionEnded } from './headers.ts'
import type { Pin, Pins } from './pin.ts'
import type { Placement } from './roster.ts'

/** Decides who gets a pin, and what an answer says of it. */
export interface Pinning {
  /** The pin that the request brings, if it is ours. */
  read(request: IncomingMessage): Pin | undefined
  /**
   * What is added to an answer of the target where the request went: a new pin, that the session has moved, or that it
   * is over.
   */
  headersFor(visit: Visit, answer: IncomingMessage): string[]
}

export interface Visit {
  request: IncomingMessage
  place: Placement
  pin: Pin | undefined
  /** The client's side is https. */
  secure: boolean
}

export interface PinningOptions {
  pins: Pins
  /** `browsers`: those that accept text/html, or bring any cookie. */
  who: 'browsers' | 'all'
  metrics: Metrics
  log: Log
}

export function createPinning({ pins, who, metrics, log }: PinningOptions): Pinning {
  const wantsPin = ({ headers }: IncomingMessage): boolean =>
    who === 'all' || headers.cookie !== undefined || (headers.accept?.includes('text/html') ?? false)

  const pinAnew = ({ place, pin, secure }: Visit): string[] => {
    const { target, movedFrom } = place
    const where = { target: target.id, revision: target.revision, ...(pin ? { session: pin.session } : {}) }
    const issued = pins.issue(where, secure)
    target.lease.seen(issued.pin.session)
    if (movedFrom === undefined) return ['Set-Cookie', issued.header]
    metrics.count('baton_gateway_sessions_moved_total', {})
    log.debug({ from: movedFrom, to: target.revision }, 'a session has moved')
    return ['Set-Cookie', issued.header, 'X-Session-Moved', movedFrom]
  }

  return {
    read: (request) => pins.read(request.headers.cookie),
    headersFor: (visit, answer) => {
      const { request, place, pin, secure } = visit
      if (answer.headers[sessionEnded] !== undefined) {
        if (pin) place.target.lease.ended(pin.session)
        return pin ? ['Set-Cookie', pins.expire(secure)] : []
      }
      if (pin?.target === place.target.id) return []
      // An answer that many are given from a cache must not make one session of them.
      if (pin === undefined && (!wantsPin(request) || isShared(answer))) return []
      return pinAnew(visit)
    },
  }
}

const isShared = ({ headers }: IncomingMessage): boolean =>
  /\b(public|s-maxage|immutable)\b/i.test(headers['cache-control'] ?? '')
