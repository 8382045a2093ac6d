import type { IncomingMessage } from 'node:http'
import type { FastifyRequest } from 'fastify'
import type { Clock } from '../../core/clock.ts'
import { newId } from '../../core/ids.ts'
import type { JobOrigin } from '../../platform/queues/ledger.ts'

const saneId = /^[A-Za-z0-9._:+/=@-]{1,128}$/
/** W3C Trace Context, version 00. A trace or parent id of zeros is invalid. */
const trace = /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/

/**
 * Gives the id that a request brought in X-Request-Id, or a new one when it brought none that could stand in a log:
 * the id of this process's run and a number, since a random one for each request costs more than it tells.
 */
export function createRequestIds(clock: Clock): (message: IncomingMessage) => string {
  const run = newId(clock.now()).replaceAll('-', '').slice(0, 20)
  let count = 0
  return (message) => {
    const given = message.headers['x-request-id']
    return typeof given === 'string' && saneId.test(given) ? given : `${run}-${(++count).toString(36)}`
  }
}

/** What is carried from a request into the jobs that it asks for. */
export function originOf({ id: requestId, raw, span }: FastifyRequest): JobOrigin {
  const traceparent = span?.traceparent ?? traceparentOf(raw)
  return traceparent === undefined ? { requestId } : { requestId, traceparent }
}

/** That of the request, if it has a sound one. */
export function traceparentOf(message: IncomingMessage): string | undefined {
  const given = message.headers['traceparent']
  return typeof given === 'string' && trace.test(given) ? given : undefined
}
