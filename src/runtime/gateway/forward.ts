import {
  type Agent,
  type ClientRequest,
  type IncomingMessage,
  request as open,
  type ServerResponse,
} from 'node:http'
import { endOfEvents } from './event-stream-end.ts'
import { hasBody } from './headers.ts'
import type { OpenStream } from './lease.ts'

/**
 * What became of a request. `unreached`: nothing of it was sent, and nothing of its body read, so it may go elsewhere.
 * `broke-off` and `timed-out`: the target may have it, and has not answered. `lost`: the same of a request that changes
 * nothing, so it may be sent again. `over`: answered, cut, or the client has gone; there is nothing to say any more.
 */
export type Outcome = 'unreached' | 'lost' | 'broke-off' | 'timed-out' | 'over'

export interface Exchange {
  request: IncomingMessage
  response: ServerResponse
  /** Path and query. */
  path: string
  /** For the target, names and values in turn. */
  headers: string[]
  to: Destination
  /** The headers of the answer for the client. Called once, when there is one. */
  answerHeaders(answer: IncomingMessage): string[]
  /** The answer is an event stream. @returns to be called at its end */
  onStream(stream: Pick<OpenStream, 'close'>): () => void
}

export interface Destination {
  port: number
  /** Connections that are kept; undefined: one for this request alone. */
  agent?: Agent
}

/** Silence before an answer begins, ms: longer than any listen waits. */
export const answerMs = 300_000

/** Of an answer, bytes: what browsers and routers still take of cookies and policies. Node's own limit is a quarter. */
const answerHeaderBytes = 65_536

/** Passes a request on to a target and its answer back, both as they come. */
export async function forward(exchange: Exchange): Promise<Outcome> {
  // Its close has been told already.
  if (exchange.response.destroyed) return 'over'
  const first = await attempt(exchange, exchange.to.agent)
  // An idle connection that the target had closed already ends so, and a new one will do.
  return first === 'stale' ? forward({ ...exchange, to: { port: exchange.to.port } }) : first
}

function attempt(exchange: Exchange, agent?: Agent): Promise<Outcome | 'stale'> {
  const { request, response, path, headers, to } = exchange
  const { promise, resolve } = Promise.withResolvers<Outcome | 'stale'>()
  const upstream = open({
    host: '127.0.0.1',
    port: to.port,
    agent: agent ?? false,
    method: request.method,
    path,
    headers: agent ? headers : [...headers, 'Connection', 'close'],
    setHost: false,
    maxHeaderSize: answerHeaderBytes,
  })
  const progress = { reached: false, answered: false, timedOut: false }
  const onClientGone = (): void => {
    // Whoever asked does not wait any more, so the target must not work for nobody.
    if (!response.writableFinished) upstream.destroy()
    resolve('over')
  }
  response.once('close', onClientGone)
  upstream.setTimeout(answerMs, () => {
    progress.timedOut = !progress.answered
    upstream.destroy()
  })
  whenConnected(upstream, () => {
    progress.reached = true
    sendBody(request, upstream)
  })
  upstream.once('response', (answer) => {
    progress.answered = true
    upstream.setTimeout(0)
    try {
      passOn(exchange, upstream, answer)
    } catch {
      // Its parser lets through what its writer refuses, such as status 099: no answer that could be passed on.
      response.off('close', onClientGone)
      request.unpipe(upstream)
      upstream.destroy()
      resolve('broke-off')
    }
  })
  upstream.on('error', () => {
    // The answer has an end of its own.
    if (progress.answered || response.destroyed) return
    response.off('close', onClientGone)
    request.unpipe(upstream)
    resolve(failureOf(progress, isRepeatable(request), upstream.reusedSocket))
  })
  return promise
}

function failureOf(
  { reached, timedOut }: { reached: boolean; timedOut: boolean },
  repeatable: boolean,
  reused: boolean,
): Outcome | 'stale' {
  if (!reached) return 'unreached'
  if (timedOut) return 'timed-out'
  if (!repeatable) return 'broke-off'
  return reused ? 'stale' : 'lost'
}

const isRepeatable = (request: IncomingMessage): boolean =>
  ['GET', 'HEAD', 'OPTIONS'].includes(request.method ?? '') && !hasBody(request)

/** Not before: what was read of a body could not be given to another target. */
function whenConnected(upstream: ClientRequest, then: () => void): void {
  upstream.once('socket', (socket) => {
    if (socket.connecting) socket.once('connect', then)
    else then()
  })
}

function sendBody(request: IncomingMessage, upstream: ClientRequest): void {
  if (hasBody(request)) request.pipe(upstream)
  else upstream.end()
}

function passOn(exchange: Exchange, upstream: ClientRequest, answer: IncomingMessage): void {
  const { request, response } = exchange
  const headers = exchange.answerHeaders(answer)
  // The rest of a body that the target does not wait for would have to be read before the next request.
  if (!request.complete && !headers.includes('Connection')) headers.push('Connection', 'close')
  response.writeHead(answer.statusCode ?? 502, answer.statusMessage ?? '', headers)
  answer.on('error', () => undefined)
  answer.once('close', () => {
    // Half of an answer must not look like a whole one.
    if (!answer.complete && !response.writableEnded) response.destroy()
  })
  answer.once('end', () => {
    if (request.complete) return
    request.unpipe(upstream)
    request.resume()
    upstream.destroy()
  })
  answer.pipe(response)
  if (isEventStream(answer)) {
    response.flushHeaders()
    const over = exchange.onStream(endOfEvents(answer, response, () => upstream.destroy()))
    response.once('close', over)
  } else {
    // Most bodies come right behind the head, and go in one packet with it then.
    setImmediate(() => void (response.writableEnded || response.destroyed || response.flushHeaders()))
  }
}

const isEventStream = (answer: IncomingMessage): boolean =>
  /^text\/event-stream\b/i.test(answer.headers['content-type'] ?? '')
