import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { Server as NetServer, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Clock } from '../../core/clock.ts'
import type { BatonError, ErrorKind } from '../../core/errors.ts'
import type { Problems } from './problems.ts'
import { headOf } from './websocket.ts'

/** What clients connect to. */
export interface ClientServer {
  listen(host: string, port: number): Promise<number>
  /** Until nobody opens connections any more (load balancers have seen that we are not ready); then stops listening. */
  closeDoor(longestMs: number): Promise<void>
  /** Ends every connection that is left, whatever is under way. */
  cut(): void
}

export interface ClientServerOptions {
  onRequest(request: IncomingMessage, response: ServerResponse): Promise<void>
  onUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void>
  onFault(error: unknown): void
  problems: Problems
  /** What could not even be read as a request, as all of Baton names it. */
  faults: { malformed: ErrorKind; headersTooLarge: ErrorKind; timedOut: ErrorKind }
  clock: Clock
}

const headersMs = 15_000
const headerBytes = 16_384
/** An upload of the largest body on a slow line. */
const requestMs = 3_600_000
/** Longer than a router keeps an idle connection (Heroku 90 s): it must never send into one that we just closed. */
const keepAliveMs = 95_000
/** As many as one target can have from one address: each needs a port of its own there. */
const mostConnections = 28_000

export function createClientServer(options: ClientServerOptions): ClientServer {
  const upgraded = new Set<Duplex>()
  const server = createServer(
    {
      maxHeaderSize: headerBytes,
      headersTimeout: headersMs,
      requestTimeout: requestMs,
      keepAliveTimeout: keepAliveMs,
      connectionsCheckingInterval: 5_000,
      // A phone that went away without a word would otherwise hold its stream until somebody writes into it.
      keepAlive: true,
      keepAliveInitialDelay: 30_000,
      // Any other upgrade is optional for whoever asks, and answered as a request without it.
      shouldUpgradeCallback: ({ method, headers }) =>
        method === 'GET' && headers.upgrade?.toLowerCase() === 'websocket',
    },
    (request, response) => {
      request.on('error', () => undefined)
      response.on('error', () => undefined)
      options.onRequest(request, response).catch((error: unknown) => {
        options.onFault(error)
        response.destroy()
      })
    },
  )
  server.maxConnections = mostConnections
  server.on('upgrade', (request, socket, head) => {
    upgraded.add(socket)
    socket.on('error', () => undefined)
    socket.once('close', () => upgraded.delete(socket))
    options.onUpgrade(request, socket, head).catch((error: unknown) => {
      options.onFault(error)
      socket.destroy()
    })
  })
  server.on('clientError', (error: Error & { code?: string }, socket) =>
    answerRaw(options, error, socket as Socket),
  )
  const visits = watchVisits(server, options.clock)

  return {
    listen: (host, port) =>
      new Promise((resolve, reject) => {
        server.once('error', reject)
        server.listen({ host, port, backlog: 1_024 }, () => {
          const address = server.address()
          resolve(typeof address === 'object' && address ? address.port : port)
        })
      }),
    closeDoor: async (longestMs) => {
      if (!server.listening) return
      await visits.waitUntilNone(longestMs)
      // http.Server's own `close` would also end idle connections, into which somebody may be sending.
      NetServer.prototype.close.call(server)
    },
    cut: () => {
      server.closeAllConnections()
      for (const socket of upgraded) socket.destroy()
    },
  }
}

const leastMs = 500
const unvisitedMs = 300
const stepMs = 50

/** To close the listening socket earlier would reset connections that the kernel has taken and we have not. */
function watchVisits(server: Server, clock: Clock) {
  let visitedMs = Number.NEGATIVE_INFINITY
  server.on('connection', () => {
    visitedMs = clock.monotonicMs()
  })
  return {
    waitUntilNone: async (longestMs: number): Promise<void> => {
      const began = clock.monotonicMs()
      const isOver = (): boolean => {
        const now = clock.monotonicMs()
        return now - began >= longestMs || (now - began >= leastMs && now - visitedMs >= unvisitedMs)
      }
      while (!isOver()) await clock.sleep(stepMs)
    },
  }
}

function answerRaw(
  { problems, faults }: ClientServerOptions,
  error: Error & { code?: string },
  socket: Socket,
): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy()
    return
  }
  const { status, headers, body } = problems.of(faultOf(faults, error.code))
  socket.end(`${headOf(status, [...Object.entries(headers).flat(), 'Connection', 'close'])}${body}`)
}

function faultOf(faults: ClientServerOptions['faults'], code: string | undefined): BatonError {
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') return faults.timedOut({ limitMs: headersMs })
  if (code === 'HPE_HEADER_OVERFLOW') return faults.headersTooLarge({ limit: headerBytes })
  return faults.malformed({ reason: 'it is not HTTP/1.1' })
}
