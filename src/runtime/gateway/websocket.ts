import { type ClientRequest, type IncomingMessage, request as open, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { OpenStream } from './lease.ts'
import { createLull } from './lull.ts'
import { closeFrame, createFrameTracker } from './websocket-frames.ts'

/** RFC 6455, registered codes: the server restarts, the client should come again after a random moment. */
const serviceRestart = 1012
/** Longest wait for the client's own Close, ms. */
const goodbyeMs = 3_000
const handshakeMs = 30_000

export interface SocketExchange {
  request: IncomingMessage
  socket: Duplex
  /** What the client has sent behind its request. */
  head: Buffer
  path: string
  headers: string[]
  port: number
  /** The headers of the answer for the client, without those of the hand-shake. */
  answerHeaders(answer: IncomingMessage): string[]
  /** The WebSocket is open. @returns to be called at its end */
  onStream(stream: Pick<OpenStream, 'close'>): () => void
}

export type SocketOutcome = 'unreached' | 'broke-off' | 'over'

/** Passes a WebSocket on to a target. */
export function forwardSocket(exchange: SocketExchange): Promise<SocketOutcome> {
  const { socket, path, headers, port } = exchange
  const { promise, resolve } = Promise.withResolvers<SocketOutcome>()
  const upstream: ClientRequest = open({
    host: '127.0.0.1',
    port,
    agent: false,
    path,
    headers,
    setHost: false,
  })
  let reached = false
  const onClientGone = (): void => {
    upstream.destroy()
    resolve('over')
  }
  socket.once('close', onClientGone)
  upstream.setTimeout(handshakeMs, () => upstream.destroy())
  upstream.once('socket', (link) => link.once('connect', () => (reached = true)))
  upstream.on('error', () => {
    socket.off('close', onClientGone)
    resolve(reached ? 'broke-off' : 'unreached')
  })
  upstream.once('response', (answer) => {
    answerPlainly(exchange, answer)
  })
  upstream.once('upgrade', (answer, link, head) => {
    upstream.setTimeout(0)
    const headersOf = [...exchange.answerHeaders(answer), 'Connection', 'Upgrade', 'Upgrade', 'websocket']
    socket.write(headOf(101, headersOf))
    relay(exchange, link, head)
  })
  upstream.end()
  return promise
}

/** The target has refused: its answer, then the end of the connection. */
function answerPlainly({ socket, answerHeaders }: SocketExchange, answer: IncomingMessage): void {
  const headers = answerHeaders(answer)
  answer.on('error', () => socket.destroy())
  socket.write(headOf(answer.statusCode ?? 502, [...headers, 'Connection', 'close']))
  answer.pipe(socket)
}

export function headOf(status: number, headers: readonly string[]): string {
  let text = `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? 'Unknown'}\r\n`
  for (let index = 0; index + 1 < headers.length; index += 2)
    text += `${headers[index]}: ${headers[index + 1]}\r\n`
  return `${text}\r\n`
}

function relay({ socket, head, onStream }: SocketExchange, link: Socket, linkHead: Buffer): void {
  const frames = createFrameTracker()
  let closed = false
  link.setNoDelay(true)
  link.setKeepAlive(true, 30_000)

  const sayGoodbye = (whole: boolean): void => {
    if (frames.closed) return
    closed = true
    // What the target still says is not passed on; what the client says is, until it has closed.
    link.resume()
    if (whole) socket.write(closeFrame(serviceRestart, 'service restart'))
    else socket.destroy()
    setTimeout(() => socket.destroy(), goodbyeMs).unref()
  }
  const lull = createLull({ isWhole: () => frames.between && !socket.writableNeedDrain, onLull: sayGoodbye })
  const fromTarget = (bytes: Buffer): void => {
    if (closed) return
    const end = frames.feed(bytes)
    // One that never pauses is ended between two frames all the same.
    const cut = lull.overdue && end !== undefined && !frames.closed
    if (!socket.write(cut ? bytes.subarray(0, end) : bytes)) link.pause()
    if (cut) {
      lull.cancel()
      sayGoodbye(true)
    } else lull.note()
  }
  link.on('data', fromTarget)
  socket.on('drain', () => {
    link.resume()
    lull.note()
  })
  socket.on('data', (bytes: Buffer) => void (link.write(bytes) || socket.pause()))
  link.on('drain', () => socket.resume())
  link.on('end', () => socket.end())
  socket.on('end', () => {
    link.end()
    // A target that does not take note would hold the stream, and be held by it, for good.
    setTimeout(() => socket.destroy(), goodbyeMs).unref()
  })
  joinEnds(socket, link)
  if (linkHead.length > 0) fromTarget(linkHead)
  if (head.length > 0) link.write(head)

  const over = onStream({ close: lull.seek })
  socket.once('close', () => {
    lull.cancel()
    over()
  })
}

/** An end of one is the end of the other, when what was written has gone out. */
function joinEnds(socket: Duplex, link: Socket): void {
  // A reset is the end that it is; without a listener it would end this process.
  link.on('error', () => undefined)
  socket.once('close', () => link.destroy())
  link.once('close', () => (socket.writableLength > 0 ? socket.end() : socket.destroy()))
}
