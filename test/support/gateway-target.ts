// A web application for tests of the gateway: it tells who it is, streams, and can be told to misbehave.
//
//   REVISION   what it answers as                 BREAK   exit | never-ready | bad-smoke | stubborn
import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'

const revision = process.env['REVISION'] ?? 'none'
const fault = process.env['BREAK'] ?? ''
if (fault === 'exit') {
  console.error('cannot open the frobnicator')
  process.exit(3)
}

const sockets = new Set<{ write(bytes: Buffer): unknown }>()
/** Requests that have begun, by path: a test awaits that one is under way. */
const begun = new Map<string, number>()
let aborted = 0

const routes: Record<
  string,
  (request: IncomingMessage, response: ServerResponse, url: URL) => Promise<unknown>
> = {
  '/readyz': async (_request, response) =>
    response.writeHead(fault === 'never-ready' ? 503 : 200).end('ready'),
  '/livez': async (_request, response) => response.writeHead(fault === 'bad-smoke' ? 500 : 200).end('alive'),
  '/': async (request, response) => json(response, { revision, pid: process.pid, headers: request.headers }),
  '/counts': async (_request, response) => json(response, { begun: Object.fromEntries(begun), aborted }),
  '/slow': async (request, response, url) => {
    response.once('close', () => (aborted += response.writableFinished ? 0 : 1))
    await pause(Number(url.searchParams.get('ms')))
    json(response, { revision })
    request.resume()
  },
  '/echo': async (request, response) => {
    response.writeHead(200, { 'content-type': 'application/octet-stream' })
    request.pipe(response)
  },
  '/events': async (_request, response, url) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.flushHeaders()
    response.once('close', () => (aborted += 1))
    if (url.searchParams.has('silent')) return
    response.write(`id: 1\ndata: ${revision}\n\n`)
    // Half of an event, and its rest when the test asks for it.
    if (url.searchParams.has('half')) response.write('data: half')
    halves.push(() => response.write('\n\n'))
  },
  '/finish-halves': async (_request, response) => {
    for (const finish of halves.splice(0)) finish()
    response.end()
  },
  '/half-answer': async (_request, response) => {
    response.writeHead(200, { 'content-length': '1000' })
    response.write('only this')
    await pause(50)
    response.destroy()
  },
  '/refuse-upload': async (_request, response) => response.writeHead(413).end('too large'),
  '/drop': async (request) => request.socket.destroy(),
  '/drop-twice': async (request, response) =>
    (begun.get('/drop-twice') ?? 0) <= 2 ? request.socket.destroy() : response.end('third'),
  '/die': async () => process.kill(process.pid, 'SIGKILL'),
  '/odd-header': async (request) =>
    request.socket.end('HTTP/1.1 200 OK\r\nX-Odd: a\x7fb\r\nContent-Length: 2\r\n\r\nok'),
  '/large-header': async (_request, response) =>
    response.setHeader('set-cookie', Array<string>(15).fill(`a=${'x'.repeat(3_000)}`)).end('large'),
  '/odd-status': async (request) => request.socket.end('HTTP/1.1 099 Odd\r\nContent-Length: 2\r\n\r\nok'),
  '/log-out': async (_request, response) => response.setHeader('x-session-ended', '1').end('bye'),
  '/hop': async (_request, response) =>
    response
      .writeHead(200, { connection: 'keep-alive, x-private', 'x-private': '1', 'keep-alive': 'timeout=1' })
      .end('hop'),
  '/shared': async (_request, response) => response.setHeader('cache-control', 'public, max-age=60').end('x'),
}
const halves: (() => void)[] = []

function json(response: ServerResponse, value: unknown): void {
  response.setHeader('content-type', 'application/json').end(JSON.stringify(value))
}

const server = createServer((request, response) => {
  const url = new URL(request.url ?? '/', 'http://target')
  begun.set(url.pathname, (begun.get(url.pathname) ?? 0) + 1)
  const route = routes[url.pathname]
  if (route) void route(request, response, url)
  else response.writeHead(404).end()
})

// RFC 6455 as far as a test needs it: each text is answered by the revision and the text, short ones alone.
server.on('upgrade', (request, socket) => {
  if (request.url === '/no-socket') {
    socket.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno')
    return
  }
  const accept = createHash('sha1')
    .update(`${request.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
    .digest('base64')
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
  )
  sockets.add(socket)
  socket.on('close', () => sockets.delete(socket))
  socket.on('error', () => undefined)
  socket.on('data', (bytes: Buffer) => {
    const opcode = (bytes[0] ?? 0) & 15
    const length = (bytes[1] ?? 0) & 127
    const mask = bytes.subarray(2, 6)
    const text = bytes.subarray(6, 6 + length).map((byte, index) => byte ^ (mask[index % 4] ?? 0))
    if (opcode === 8) return void socket.end(Buffer.from([0x88, 0]))
    const answer = Buffer.from(`${revision}:${text.toString()}`)
    socket.write(Buffer.concat([Buffer.from([0x81, answer.length]), answer]))
  })
})

server.keepAliveTimeout = 5_000
server.listen(Number(process.env['PORT']), process.env['HOST'], () =>
  console.log(`target ${revision} listens`),
)

if (fault !== 'ignore-term') {
  process.on('SIGTERM', () => {
    server.close(() => process.exit(0))
    server.closeIdleConnections()
  })
} else process.on('SIGTERM', () => console.log('not yet'))
