import { readFileSync } from 'node:fs'
import { createServer as createPlain, type Server } from 'node:http'
import { createSecureServer, type Http2SecureServer, type ServerHttp2Session } from 'node:http2'
import { createServer as createSecure } from 'node:https'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'

const fileOf = (name: string): string =>
  fileURLToPath(new URL(`../fixtures/tls/localhost.${name}.pem`, import.meta.url))
const fixture = (name: string): string => readFileSync(fileOf(name), 'utf8')

/** The certificate of the service, to be trusted by who sends to it. */
export const serviceCa = fixture('cert')
/** The same, for `NODE_EXTRA_CA_CERTS`. */
export const serviceCaFile = fileOf('cert')

export type Script =
  | { status: number; headers?: Record<string, string>; body?: string }
  /** Takes the request and never answers. */
  | 'hang'
  /** Takes the request and cuts the connection. */
  | 'reset'

export interface Received {
  at: number
  path: string
  headers: Record<string, string>
  body: Buffer
  httpVersion: string
}

/** A stand-in for a cloud push provider, or for who receives webhooks. */
export interface PushService {
  readonly origin: string
  readonly received: Received[]
  /** Connections so far. */
  readonly connections: number
  /** What the next requests get; 201 when nothing is said. Given a function, it is asked for each. */
  answer(script: Script | ((received: Received) => Script | Promise<Script>)): void
  /** Asks all sessions to go away, and goes on serving new ones. With an error code it gives up what is under way. */
  goAway(farewell?: string, code?: number): void
  close(): Promise<void>
}

export async function startPushService(
  protocol: 'h2' | 'https' | 'http' = 'h2',
  port = 0,
): Promise<PushService> {
  const received: Received[] = []
  const sessions = new Set<ServerHttp2Session>()
  let connections = 0
  let script: Script | ((received: Received) => Script | Promise<Script>) = { status: 201 }

  const server = create(protocol)
  server.on(protocol === 'http' ? 'connection' : 'secureConnection', () => {
    connections += 1
  })
  server.on('session', (session: ServerHttp2Session) => {
    sessions.add(session)
    session.on('error', () => undefined)
    session.on('close', () => sessions.delete(session))
  })
  server.on('request', (request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('error', () => undefined)
    response.on('error', () => undefined)
    request.on('end', async () => {
      const one: Received = {
        at: performance.now(),
        path: request.url ?? '',
        headers: request.headers as Record<string, string>,
        body: Buffer.concat(chunks),
        httpVersion: request.httpVersion,
      }
      received.push(one)
      const said = typeof script === 'function' ? await script(one) : script
      if (said === 'hang') return
      if (said === 'reset') return void request.socket.destroy()
      response.writeHead(said.status, { location: `/message/${received.length}`, ...said.headers })
      response.end(said.body ?? '')
    })
  })
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
  const bound = (server.address() as AddressInfo).port
  return {
    origin: `${protocol === 'http' ? 'http' : 'https'}://localhost:${bound}`,
    received,
    get connections() {
      return connections
    },
    answer: (next) => {
      script = next
    },
    goAway: (farewell = '', code = 0) => {
      for (const session of sessions) session.goaway(code, 0, Buffer.from(farewell))
    },
    close: () =>
      new Promise((resolve) => {
        for (const session of sessions) session.destroy()
        server.close(() => resolve())
        if ('closeAllConnections' in server) server.closeAllConnections()
      }),
  }
}

function create(protocol: 'h2' | 'https' | 'http'): Server | Http2SecureServer {
  const tls = { key: fixture('key'), cert: serviceCa }
  if (protocol === 'http') return createPlain()
  return protocol === 'h2' ? createSecureServer(tls) : (createSecure(tls) as unknown as Server)
}
