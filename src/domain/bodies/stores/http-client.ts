import { randomUUID } from 'node:crypto'
import {
  type ClientRequest,
  Agent as HttpAgent,
  request as httpRequest,
  type IncomingMessage,
} from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { pipeline } from 'node:stream/promises'
import type { Clock } from '../../../core/clock.ts'
import { BatonError, messageOf } from '../../../core/errors.ts'
import type { Metrics } from '../../../platform/metrics.ts'
import { createAdmission } from '../admission.ts'
import type { BodySource } from '../body-store.ts'
import { BODY_TIMEOUT, BODY_UNAVAILABLE } from '../errors.ts'
import { type Attempt, createStoreBreaker } from './store-breaker.ts'

export interface HttpClientOptions {
  /** Of the store, for messages. */
  store: string
  /** Scheme, host and port. */
  origin: URL
  clock: Clock
  /** Longest silence of the other side, ms. */
  timeoutMs: number
  /** Connections at once. As many as 1,000 callers wait for one, for up to `timeoutMs`. */
  maxConnections: number
  /** Failures in a row after which the store is given a rest; 3 unless said. */
  failures?: number | undefined
  metrics?: Metrics | undefined
}

export interface HttpExchange {
  method: string
  /** Path and query, encoded. */
  path: string
  headers: Record<string, string>
  body?: BodySource
  signal?: AbortSignal | undefined
  /**
   * Whether a connection may be used that others have used before. Only for answers that are verified by their
   * bytes: on such a connection a late answer to somebody else could be taken for ours.
   */
  shared?: boolean
}

export interface HttpClient {
  /**
   * Resolves with the head of the answer. Its stream must be read to the end or destroyed; destroyed, it takes the
   * connection with it, so nobody else can meet what was left on it.
   *
   * @throws BODY_UNAVAILABLE (at once while the store was away a moment ago), BODY_TIMEOUT, BODY_OVERLOADED
   */
  send(exchange: HttpExchange): Promise<IncomingMessage>
  close(): void
}

export function createHttpClient(options: HttpClientOptions): HttpClient {
  const { origin, timeoutMs, store } = options
  const secure = origin.protocol === 'https:'
  const agentOptions = { keepAlive: true, maxFreeSockets: 8, timeout: timeoutMs }
  const agent = secure ? new HttpsAgent(agentOptions) : new HttpAgent(agentOptions)
  const admission = createAdmission({
    clock: options.clock,
    maxActive: options.maxConnections,
    maxWaiting: 1_000,
    maxWaitMs: timeoutMs,
  })
  const breaker = createStoreBreaker({ ...options, failures: options.failures ?? 3 })
  const bound = createBinding(store)

  const open = ({ method, path, headers, body, shared }: HttpExchange, requestId: string): ClientRequest =>
    (secure ? httpsRequest : httpRequest)({
      method,
      path,
      host: origin.hostname.replace(/^\[|\]$/g, ''),
      port: origin.port,
      headers: {
        ...headers,
        'X-Request-Id': requestId,
        ...(body && { 'Content-Length': String(body.size) }),
      },
      agent: shared ? agent : false,
      timeout: timeoutMs,
    })

  return {
    send: async (exchange) => {
      const leave = await admission.enter(exchange.signal)
      let attempt: Attempt
      try {
        attempt = breaker.enter()
      } catch (error) {
        leave()
        throw error
      }
      try {
        const requestId = randomUUID()
        const request = open(exchange, requestId)
        request.once('close', leave)
        request.once('timeout', () => request.destroy(BODY_TIMEOUT({ store, timeoutMs })))
        const answer = bound(requestId, await exchangeOver(request, exchange))
        if (saysAway.has(answer.statusCode ?? 0)) attempt.failed({ silent: false })
        else attempt.answered()
        return answer
      } catch (error) {
        if (exchange.signal?.aborted || error instanceof SourceFailure) attempt.dropped()
        else attempt.failed({ silent: BODY_TIMEOUT.is(error) })
        throw unavailable(store, error instanceof SourceFailure ? error.cause : error)
      }
    },
    close: () => agent.destroy(),
  }
}

async function exchangeOver(
  request: ClientRequest,
  { body, signal }: HttpExchange,
): Promise<IncomingMessage> {
  // Meets what comes after the answer too; an error without a listener would end the process.
  request.on('error', () => undefined)
  const abort = (): void => void request.destroy(signal?.reason as Error)
  signal?.addEventListener('abort', abort, { once: true })
  request.once('close', () => signal?.removeEventListener('abort', abort))
  try {
    return await answerOf(request, body)
  } catch (error) {
    request.destroy()
    throw error
  }
}

/** What a gateway says of a server that is not there. Other faults of a server are answers. */
const saysAway = new Set([502, 503, 504])

/**
 * A store that gives the id of a request back with its answer has to go on with it: an answer with another id is one to
 * another request. Until it has once, such a header is taken for a number of its own.
 */
function createBinding(store: string): (requestId: string, answer: IncomingMessage) => IncomingMessage {
  let echoes = false
  return (requestId, answer) => {
    const echoed = answer.headers['x-request-id']
    if (echoed === requestId) echoes = true
    else if (echoed !== undefined && echoes) {
      answer.destroy()
      throw BODY_UNAVAILABLE({ store, reason: 'it answered another request' })
    }
    return answer
  }
}

/** The answer may come before all is sent: then the rest is not sent, and the connection is not used again. */
async function answerOf(request: ClientRequest, body: BodySource | undefined): Promise<IncomingMessage> {
  const answer = new Promise<IncomingMessage>((resolve, reject) => {
    request.once('response', resolve)
    request.once('error', reject)
    request.once('close', () => reject(new Error('the connection was closed before the answer')))
  })
  answer.catch(() => undefined)
  if (!body) {
    request.end()
    return answer
  }
  const source = { ...body, broke: undefined as unknown }
  pipeline(exactly(source), request).catch(() => request.destroy())
  try {
    const response = await answer
    if (!request.writableFinished) response.once('end', () => request.destroy())
    return response
  } catch (error) {
    // That the connection was closed is then only what followed from it.
    throw source.broke === undefined ? error : new SourceFailure({ cause: source.broke })
  }
}

/** Not the store's fault. */
class SourceFailure extends Error {
  constructor(options: { cause: unknown }) {
    super('the source of the body failed', options)
  }
}

/** A body that ends early would leave the other side waiting for the rest, on a connection in an unknown state. */
async function* exactly(source: BodySource & { broke: unknown }): AsyncGenerator<Uint8Array> {
  let sent = 0
  try {
    for await (const chunk of source.open()) {
      sent += chunk.length
      yield chunk
    }
    if (sent !== source.size) throw new Error(`the source has ${sent} bytes instead of ${source.size}`)
  } catch (error) {
    source.broke = error
    throw error
  }
}

const unavailable = (store: string, error: unknown): Error =>
  error instanceof BatonError
    ? error
    : BODY_UNAVAILABLE({ store, reason: messageOf(error) }, { cause: error })

/** Reads an answer whose content says nothing, so that its connection can be used again. */
export async function discard(answer: IncomingMessage): Promise<void> {
  for await (const _chunk of answer);
}

/** Reads a short answer; a longer one is cut off with its connection. */
export async function readText(answer: IncomingMessage, maxBytes: number): Promise<string> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    chunks.push(chunk)
    length += chunk.length
    if (length > maxBytes) break
  }
  return Buffer.concat(chunks).subarray(0, maxBytes).toString('utf8')
}
