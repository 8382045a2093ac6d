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
import { createAdmission } from '../admission.ts'
import type { BodySource } from '../body-store.ts'
import { BODY_TIMEOUT, BODY_UNAVAILABLE } from '../errors.ts'

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
   * @throws BODY_UNAVAILABLE, BODY_TIMEOUT, BODY_OVERLOADED
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

  const open = ({ method, path, headers, body, shared }: HttpExchange): ClientRequest =>
    (secure ? httpsRequest : httpRequest)({
      method,
      path,
      host: origin.hostname.replace(/^\[|\]$/g, ''),
      port: origin.port,
      headers: { ...headers, ...(body && { 'Content-Length': String(body.size) }) },
      agent: shared ? agent : false,
      timeout: timeoutMs,
    })

  return {
    send: async (exchange) => {
      const leave = await admission.enter(exchange.signal)
      const request = open(exchange)
      request.once('close', leave)
      // Meets what comes after the answer too; an error without a listener would end the process.
      request.on('error', () => undefined)
      request.once('timeout', () => request.destroy(BODY_TIMEOUT({ store, timeoutMs })))
      const abort = (): void => void request.destroy(exchange.signal?.reason as Error)
      exchange.signal?.addEventListener('abort', abort, { once: true })
      request.once('close', () => exchange.signal?.removeEventListener('abort', abort))
      try {
        return await answerOf(request, exchange.body)
      } catch (error) {
        request.destroy()
        throw unavailable(store, error)
      }
    },
    close: () => agent.destroy(),
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
    throw source.broke ?? error
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
