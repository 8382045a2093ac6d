import type { Socket } from 'node:net'
import swagger from '@fastify/swagger'
import { type FastifyInstance, type FastifyReply, type FastifyRequest, fastify } from 'fastify'
import type { Clock } from '../../core/clock.ts'
import { BatonError, messageOf } from '../../core/errors.ts'
import { KEY_INVALID, KEY_MISSING } from '../../platform/access/errors.ts'
import { type Authenticator, assertRole, type Principal, type Role } from '../../platform/access.ts'
import type { Log } from '../../platform/log.ts'
import type { Tracing } from '../../platform/tracing.ts'
import {
  HEADERS_TOO_LARGE,
  METHOD_NOT_ALLOWED,
  REQUEST_MALFORMED,
  REQUEST_TIMED_OUT,
  ROUTE_NOT_FOUND,
} from './errors.ts'
import { readJson } from './json-body.ts'
import { readBytes } from './json-reader.ts'
import { lingeringAnswer } from './lingering-answer.ts'
import { openApi } from './open-api.ts'
import type { Overload } from './overload.ts'
import { problemHeaders, problemOf, problemType, toBatonError } from './problem.ts'
import { createRequestIds } from './request-origin.ts'
import { addRequestTracing } from './request-tracing.ts'
import { createRouteTable, type RouteTable } from './route-table.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Roles that may use the route, besides the operator. Not given: open to all. */
    roles?: readonly Role[]
    /** Takes work in, so it is refused first when there is too much of it. */
    intake?: boolean
    /** An empty JSON body is no fault. */
    bodyOptional?: boolean
  }
  interface FastifyRequest {
    /** Set on every route that has roles. */
    principal: Principal | null
    /** The bytes of a JSON body, kept only when the request has an Idempotency-Key. */
    rawBody: Buffer | null
  }
}

export interface ServerOptions {
  clock: Clock
  log: Log
  authenticator: Authenticator
  overload: Overload
  limits: ServerLimits
  /** Undefined: nothing is traced. */
  tracing?: Tracing | undefined
  /**
   * Told of every answer; ms is the time from the headers of the request to the end of the answer. The status is 499
   * when its connection ended before it was out.
   */
  onAnswer(answer: { method: string; route: string; status: number; ms: number }): void
  onProblem(code: string): void
  isStopping(): boolean
}

export interface ServerLimits {
  /** Largest JSON body. */
  bodyBytes: number
  /** Longest time that a JSON body may take to arrive. */
  bodyMs: number
  connections: number
}

export const defaultLimits: ServerLimits = { bodyBytes: 1_048_576, bodyMs: 20_000, connections: 10_000 }

const headersMs = 15_000
const headerBytes = 16_384
/** An upload of the largest body on a slow line. */
const requestMs = 3_600_000
const silentMs = 120_000
/** Longer than a router keeps an idle connection (Heroku 90 s): it must never send into one that we just closed. */
const keepAliveMs = 95_000

/** A fastify that answers every fault in one form, and knows who asks. Routes are added by the caller. */
export async function createServer(options: ServerOptions): Promise<FastifyInstance> {
  const { limits } = options
  const server = fastify({
    logger: false,
    requestIdHeader: false,
    genReqId: createRequestIds(options.clock),
    bodyLimit: limits.bodyBytes,
    requestTimeout: requestMs,
    connectionTimeout: silentMs,
    keepAliveTimeout: keepAliveMs,
    http: { headersTimeout: headersMs, maxHeaderSize: headerBytes, connectionsCheckingInterval: 5_000 },
    // What comes on an open connection during a stop is answered, not refused.
    return503OnClosing: false,
    forceCloseConnections: 'idle',
    clientErrorHandler: answerRawError,
    frameworkErrors: (error, request, reply) => answerError(options, error, { request, reply }),
    // 200 characters, each of up to four bytes, each byte as %XX.
    routerOptions: { maxParamLength: 2_400 },
  })
  server.server.maxConnections = limits.connections
  // Our schemas are for the documents: routes check their input by themselves and answer finished text or JSON.
  server.setValidatorCompiler(() => () => true)
  server.setSerializerCompiler(() => (value) => JSON.stringify(value))
  server.decorateRequest('principal', null)
  server.decorateRequest('rawBody', null)

  const table = createRouteTable()
  server.addHook('onRoute', (route) => table.add(route.method, route.url))
  await server.register(swagger, { openapi: openApi })
  addJsonParser(server, limits)
  addRequestTracing(server, options.tracing)
  server.addHook('onRequest', (request, reply, done) => {
    // Not onResponse, which is not called when the client goes before its answer.
    reply.raw.once('close', () => tell(options, request, reply))
    done()
  })
  server.addHook('onRequest', (request, reply, done) => admit(options, table, { request, reply, done }))
  server.setErrorHandler((error, request, reply) => answerError(options, error, { request, reply }))
  server.setNotFoundHandler((request) => {
    throw ROUTE_NOT_FOUND({ path: pathOf(request) })
  })
  return server
}

interface Exchange {
  request: FastifyRequest
  reply: FastifyReply
}

/** Runs before a byte of the body is read. Synchronous whenever the key is known, since most requests are. */
function admit(
  options: ServerOptions,
  table: RouteTable,
  { request, reply, done }: Exchange & { done: (error?: Error) => void },
): void {
  let entering: Promise<void> | undefined
  try {
    reply.header('x-request-id', request.id)
    if (options.isStopping()) reply.header('connection', 'close')
    if (request.is404) return answerUnknown(table, { request, reply })
    entering = assertAllowed(options, request)
  } catch (error) {
    return done(error as Error)
  }
  if (entering) void goOn(entering, done)
  else done()
}

async function goOn(entering: Promise<void>, done: (error?: Error) => void): Promise<void> {
  try {
    await entering
  } catch (error) {
    return done(error as Error)
  }
  done()
}

/** @throws OVERLOADED, KEY_MISSING, KEY_INVALID, ROLE_MISSING */
function assertAllowed(options: ServerOptions, request: FastifyRequest): Promise<void> | undefined {
  const { roles, intake } = request.routeOptions.config
  if (intake === true) options.overload.assertRoom()
  if (roles === undefined) return undefined
  const principal = options.authenticator.authenticate(bearerOf(request))
  if (principal instanceof Promise) return principal.then((found) => enter(request, found, roles))
  enter(request, principal, roles)
  return undefined
}

function enter(request: FastifyRequest, principal: Principal | undefined, roles: readonly Role[]): void {
  if (!principal) throw KEY_INVALID()
  assertRole(principal, roles)
  request.principal = principal
}

/** @throws KEY_MISSING */
function bearerOf(request: FastifyRequest): string {
  const header = request.headers.authorization
  if (header === undefined) throw KEY_MISSING()
  const key = /^bearer +(\S+) *$/i.exec(header)?.[1]
  if (key === undefined) throw KEY_MISSING()
  return key
}

/** A wrong method is told which ones are right; OPTIONS asks for just that. */
function answerUnknown(table: RouteTable, { request, reply }: Exchange): void {
  const path = pathOf(request)
  const methods = table.methodsOf(path)
  if (methods.length === 0) throw ROUTE_NOT_FOUND({ path })
  const allowed = [...methods, 'OPTIONS'].join(', ')
  reply.header('allow', allowed)
  if (request.method !== 'OPTIONS') throw METHOD_NOT_ALLOWED({ path, method: request.method, allowed })
  reply.code(204).send()
}

const pathOf = (request: FastifyRequest): string => (request.url.split('?', 1)[0] ?? '').slice(0, 200)

function addJsonParser(server: FastifyInstance, limits: ServerLimits): void {
  server.removeAllContentTypeParsers()
  server.addContentTypeParser('application/json', (request, message, done) => {
    readBytes(message, { bytes: limits.bodyBytes, ms: limits.bodyMs }, (error, bytes) => {
      if (error || !bytes) return done(error)
      if (bytes.length === 0 && request.routeOptions.config.bodyOptional === true)
        return done(null, undefined)
      if (request.headers['idempotency-key'] !== undefined) request.rawBody = bytes
      let value: unknown
      try {
        value = readJson(bytes)
      } catch (fault) {
        return done(fault as Error)
      }
      done(null, value)
    })
  })
}

function answerError(options: ServerOptions, thrown: unknown, { request, reply }: Exchange): void {
  const error = toBatonError(thrown, options.limits.bodyBytes)
  options.onProblem(error.code)
  if (error.traits.status >= 500) logFault(options.log, error, request)
  // The rest of a body that was refused would have to be read before the connection could be used again.
  const isCutShort = error.traits.status === 413 || error.traits.status === 408
  if (isCutShort) reply.header('connection', 'close')
  const text = problemOf(error, request.id)
  reply.code(error.traits.status).headers(problemHeaders(error)).type(problemType)
  if (!isCutShort || request.raw.complete) return void reply.send(text)
  reply.header('content-length', Buffer.byteLength(text)).send(lingeringAnswer(text, request.raw))
}

function logFault(log: Log, error: BatonError, request: FastifyRequest): void {
  const line = {
    code: error.code,
    requestId: request.id,
    method: request.method,
    route: request.routeOptions.url,
    reason: messageOf(error.cause ?? error),
    ...(error.traits.report && error.cause instanceof Error && !(error.cause instanceof BatonError)
      ? { stack: error.cause.stack }
      : {}),
  }
  if (error.traits.report) log.error(line, 'A request failed')
  else log.warn(line, 'A request was refused')
}

/** The status of an answer that did not leave whole; nginx writes it into its log. */
const clientGone = 499

function tell(options: ServerOptions, request: FastifyRequest, reply: FastifyReply): void {
  const { raw } = reply
  // A stream is ended by its client; one that became a WebSocket was no answer.
  const isOpenStream = reply.sent && raw.headersSent && !raw.writableEnded
  if (!raw.writableFinished && request.headers.upgrade !== undefined) return
  const status = raw.writableFinished || isOpenStream ? raw.statusCode : clientGone
  const route = request.routeOptions.url ?? 'unknown'
  const answer = { method: request.method, route, status, ms: reply.elapsedTime }
  options.onAnswer(answer)
  if (options.log.isLevelEnabled('debug')) options.log.debug({ requestId: request.id, ...answer }, 'Answered')
}

/** What could not even be read as a request. */
function answerRawError(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy()
    return
  }
  const problem =
    error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
      ? REQUEST_TIMED_OUT({ limitMs: headersMs })
      : error.code === 'HPE_HEADER_OVERFLOW'
        ? HEADERS_TOO_LARGE({ limit: headerBytes })
        : REQUEST_MALFORMED({ reason: 'it is not HTTP/1.1' })
  const body = problemOf(problem)
  socket.end(
    `HTTP/1.1 ${problem.traits.status} Error\r\nContent-Type: ${problemType}\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  )
}
