import type { Clock } from '../../../core/clock.ts'
import { messageOf } from '../../../core/errors.ts'
import { ADDRESS_REFUSED } from '../errors.ts'
import { assertPublicHost } from './address-safety.ts'
import { connectTls } from './connect.ts'
import { createHttp1, type Http1 } from './http1.ts'
import { createSession, type Session } from './http2.ts'

export interface HttpRequest {
  url: URL
  headers: Record<string, string>
  body: Buffer
}

export type HttpAnswer =
  | {
      kind: 'answer'
      status: number
      /** Names in lower case. */
      headers: Record<string, string>
      /** The first 4 KiB. */
      body: string
    }
  /** No answer. `sent`: it may have arrived. */
  | { kind: 'failed'; sent: boolean; reason: string }
  /** The address is not one that pushes go to. */
  | { kind: 'refused'; reason: string }

/** Sends POST requests, over one long-lived HTTP/2 session an origin, or HTTP/1.1 where that is all there is. */
export interface HttpSender {
  /** One try, at most `timeoutMs` long with everything. Never throws. */
  post(request: HttpRequest, timeoutMs: number): Promise<HttpAnswer>
  /** Sessions that are open, of HTTP/2. */
  readonly sessions: number
  close(): Promise<void>
}

export interface HttpSenderOptions {
  clock: Clock
  allowPrivate: boolean
  /** Certificates that are trusted besides the usual ones, PEM. */
  ca?: string
  connectTimeoutMs?: number
  /** A session that carried nothing for so long is closed, ms; 0: none is. */
  idleMs?: number
  pingEveryMs?: number
}

type Origin = { kind: 'h2'; session: Session } | { kind: 'h1'; until: number }

/** How long an origin that speaks only HTTP/1.1 is not asked again for HTTP/2, ms. */
const rememberMs = 10 * 60_000
const maxOrigins = 2_000

export function createHttpSender(options: HttpSenderOptions): HttpSender {
  const { clock, allowPrivate } = options
  const origins = createOrigins(options)
  const http1: Http1 = createHttp1(options)

  const post = async (request: HttpRequest, timeoutMs: number): Promise<HttpAnswer> => {
    const until = clock.monotonicMs() + timeoutMs
    if (!allowPrivate) assertPublicHost(request.url.hostname)
    if (request.url.protocol === 'http:') return http1.post(request, timeoutMs)
    const origin = await origins.get(request.url)
    const leftMs = Math.max(1, until - clock.monotonicMs())
    return origin.kind === 'h2' ? origin.session.post(request, leftMs) : http1.post(request, leftMs)
  }

  return {
    post: async (request, timeoutMs) => {
      try {
        return await post(request, timeoutMs)
      } catch (error) {
        if (ADDRESS_REFUSED.is(error)) return { kind: 'refused', reason: error.message }
        return { kind: 'failed', sent: false, reason: messageOf(error) }
      }
    },
    get sessions() {
      return origins.size
    },
    close: async () => {
      http1.close()
      await origins.close()
    },
  }
}

interface Origins {
  readonly size: number
  get(url: URL): Promise<Origin>
  close(): Promise<void>
}

/** What each origin speaks, and its session. All who come while a connection is being made share it, and its failure. */
function createOrigins(options: HttpSenderOptions): Origins {
  const { clock } = options
  const origins = new Map<string, Promise<Origin>>()

  const forget = (name: string, origin: Promise<Origin>): void => {
    if (origins.get(name) === origin) origins.delete(name)
  }

  const open = async (url: URL, retired: () => void): Promise<Origin> => {
    const socket = await connectTls(url, options)
    if (socket.alpnProtocol !== 'h2') {
      socket.destroy()
      return { kind: 'h1', until: clock.monotonicMs() + rememberMs }
    }
    const { idleMs = 300_000, pingEveryMs = 30_000 } = options
    const session = createSession(url.origin, socket, { idleMs, pingEveryMs })
    session.onRetired(retired)
    return { kind: 'h2', session }
  }

  return {
    get size() {
      return origins.size
    },
    get: async (url) => {
      const name = url.origin
      const known = origins.get(name)
      if (known) {
        const origin = await known
        if (origin.kind === 'h2' || origin.until > clock.monotonicMs()) return origin
        forget(name, known)
      }
      if (origins.size >= maxOrigins) origins.delete(origins.keys().next().value ?? '')
      const opening: Promise<Origin> = open(url, () => forget(name, opening))
      origins.set(name, opening)
      opening.catch(() => forget(name, opening))
      return opening
    },
    close: async () => {
      for (const opening of origins.values()) {
        const origin = await opening.catch(() => undefined)
        if (origin?.kind === 'h2') origin.session.destroy()
      }
      origins.clear()
    },
  }
}
