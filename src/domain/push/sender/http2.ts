import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from 'node:http2'
import type { TLSSocket } from 'node:tls'
import type { HttpAnswer, HttpRequest } from './http-sender.ts'

/** One HTTP/2 session with one origin. */
export interface Session {
  post(request: HttpRequest, timeoutMs: number): Promise<HttpAnswer>
  /** Called once, when it takes nothing new any more: GOAWAY, closed, idle, silent. What is under way may end. */
  onRetired(callback: () => void): void
  destroy(): void
}

export interface SessionOptions {
  /** A session that carried nothing for so long is closed, ms; 0: none is. */
  idleMs: number
  /** How often it is seen whether the other end is still there, ms. */
  pingEveryMs: number
}

const pingLimitMs = 5_000
/** Of an answer; the rest is let go. */
export const maxAnswerBytes = 4_096

export function createSession(origin: string, socket: TLSSocket, options: SessionOptions): Session {
  const { idleMs, pingEveryMs } = options
  const session = connect(origin, { createConnection: () => socket, settings: { enablePush: false } })
  const retired: (() => void)[] = []
  let over = false
  /** What the server said when it went away. Apple gives its reason there and nowhere else. */
  let farewell = ''
  const retire = (): void => {
    if (over) return
    over = true
    clearInterval(pinging)
    for (const callback of retired) callback()
  }
  const pinging = setInterval(() => ping(session), pingEveryMs)
  pinging.unref()
  session.setTimeout(idleMs, () => {
    retire()
    session.close()
  })
  session.once('goaway', (_code, _lastStream, data?: Uint8Array) => {
    farewell = textOf(data)
    retire()
    // Streams that the server still answers end by themselves; then the connection goes.
    session.close()
  })
  session.once('close', retire)
  // Each stream gets the error itself; without a listener the process would end.
  session.on('error', retire)

  return {
    post: (request, timeoutMs) =>
      over || session.closed || session.destroyed
        ? Promise.resolve({ kind: 'failed', sent: false, reason: 'the session has ended' })
        : postOn(session, request, timeoutMs).then((answer) => withFarewell(answer, farewell)),
    onRetired: (callback) => void retired.push(callback),
    destroy: () => {
      retire()
      session.destroy()
    },
  }
}

const textOf = (data: Uint8Array | undefined): string =>
  data === undefined
    ? ''
    : Buffer.from(data.subarray(0, 200))
        .toString()
        .replaceAll(/[^\x20-\x7e]+/g, ' ')

const withFarewell = (answer: HttpAnswer, farewell: string): HttpAnswer =>
  answer.kind === 'failed' && farewell !== ''
    ? { ...answer, reason: `${answer.reason}; the server went away with ${farewell}` }
    : answer

/** A connection whose other end is gone without a word swallows every request until somebody asks. */
function ping(session: ClientHttp2Session): void {
  if (session.closed || session.destroyed) return
  const timer = setTimeout(() => session.destroy(new Error('a ping was not answered')), pingLimitMs)
  timer.unref()
  try {
    session.ping(() => clearTimeout(timer))
  } catch {
    clearTimeout(timer)
  }
}

function postOn(session: ClientHttp2Session, { url, headers, body }: HttpRequest, timeoutMs: number) {
  return new Promise<HttpAnswer>((resolve) => {
    const stream = session.request({
      [constants.HTTP2_HEADER_METHOD]: 'POST',
      [constants.HTTP2_HEADER_PATH]: `${url.pathname}${url.search}`,
      ...headers,
      'content-length': String(body.length),
    })
    const timer = setTimeout(() => {
      ping(session)
      settle({ kind: 'failed', sent: true, reason: `no answer within ${timeoutMs} ms` })
      stream.close(constants.NGHTTP2_CANCEL)
    }, timeoutMs)
    const settle = (answer: HttpAnswer): void => {
      clearTimeout(timer)
      resolve(answer)
    }
    collect(stream, settle)
    stream.end(body)
  })
}

function collect(stream: ClientHttp2Stream, settle: (answer: HttpAnswer) => void): void {
  let status = 0
  let headers: Record<string, string> = {}
  const chunks: Buffer[] = []
  let size = 0
  stream.on('response', (found) => {
    status = Number(found[constants.HTTP2_HEADER_STATUS])
    headers = Object.fromEntries(
      Object.entries(found)
        .filter(([name]) => !name.startsWith(':'))
        .map(([name, value]) => [name, Array.isArray(value) ? value.join(', ') : String(value)]),
    )
  })
  stream.on('data', (chunk: Buffer) => {
    if (size < maxAnswerBytes) chunks.push(chunk)
    size += chunk.length
  })
  stream.on('error', () => undefined)
  stream.on('close', () => {
    if (status > 0) {
      const body = Buffer.concat(chunks).subarray(0, maxAnswerBytes).toString()
      return settle({ kind: 'answer', status, headers, body })
    }
    // The server says that it has not looked at it (RFC 9113, 8.7).
    const sent = stream.rstCode !== constants.NGHTTP2_REFUSED_STREAM
    return settle({ kind: 'failed', sent, reason: `the stream was reset (${stream.rstCode})` })
  })
}
