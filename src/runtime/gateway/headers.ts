import type { IncomingMessage } from 'node:http'
import { BlockList, isIPv6 } from 'node:net'

/** Meant for the next hop alone (RFC 9110, 7.6.1), and what carried them before it. */
const hopByHop = new Set([
  'connection',
  'proxy-connection',
  'keep-alive',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'proxy-authenticate',
  'proxy-authorization',
])
/** `Connection` may name further ones, but whoever sends it must not take away what others rely on. */
const endToEnd = new Set(['host', 'content-length', 'content-type', 'cookie', 'set-cookie', 'authorization'])
/** Written anew. 100-continue was answered here. */
const replaced = new Set([
  'x-forwarded-for',
  'x-forwarded-proto',
  'x-forwarded-host',
  'x-request-id',
  'cookie',
  'expect',
])

const loopbackAndPrivate = new BlockList()
for (const [network, bits] of [
  ['127.0.0.0', 8],
  ['10.0.0.0', 8],
  ['172.16.0.0', 12],
  ['192.168.0.0', 16],
  ['169.254.0.0', 16],
  ['100.64.0.0', 10],
] as const)
  loopbackAndPrivate.addSubnet(network, bits, 'ipv4')
loopbackAndPrivate.addAddress('::1', 'ipv6')
loopbackAndPrivate.addSubnet('fc00::', 7, 'ipv6')

/** What is known of how a request came. */
export interface Origin {
  /** X-Forwarded-For, -Proto and -Host, as the target gets them. */
  for: string
  proto: string
  host: string
  /** The client's side is https. */
  secure: boolean
  /** A router of ours was the peer, so what it says of the client is believed. */
  trusted: boolean
}

/**
 * From a private peer X-Forwarded-* is believed, since it is a router; from a public one it is not, since anybody can
 * send it. The last of X-Forwarded-For stays what the router said: targets count attempts by it, and the router's own
 * address would be the same for everybody.
 */
export function originOf(request: IncomingMessage): Origin {
  const peer = (request.socket.remoteAddress ?? 'unknown').replace(/^::ffff:/, '')
  const trusted = isPrivate(peer)
  const given = (name: string): string | undefined => {
    const value = request.headers[name]
    return trusted && typeof value === 'string' && value !== '' ? value : undefined
  }
  const proto = given('x-forwarded-proto') ?? 'http'
  return {
    for: given('x-forwarded-for') ?? peer,
    proto,
    host: given('x-forwarded-host') ?? request.headers.host ?? '',
    secure: /^\s*(https|wss)/i.test(proto),
    trusted,
  }
}

const isPrivate = (address: string): boolean => {
  try {
    return loopbackAndPrivate.check(address, isIPv6(address) ? 'ipv6' : 'ipv4')
  } catch {
    return false
  }
}

export interface Outgoing {
  origin: Origin
  requestId: string
  /** The Cookie header without what is ours; undefined: none. */
  cookies: string | undefined
}

/** The headers for the target, names and values in turn, in the order and case in which they came. */
export function requestHeaders(
  request: IncomingMessage,
  { origin, requestId, cookies }: Outgoing,
  upgrade = false,
): string[] {
  const dropped = namedByConnection(request.headers.connection)
  const headers = missingHost(request)
  let hosts = 0
  const raw = request.rawHeaders
  // An index and no generator: this is done for every request.
  for (let index = 0; index + 1 < raw.length; index += 2) {
    const name = raw[index] ?? ''
    const lower = name.toLowerCase()
    if (hopByHop.has(lower) || replaced.has(lower) || dropped.has(lower)) continue
    if (lower === 'host' && ++hosts > 1) continue
    if (lower === 'forwarded' && !origin.trusted) continue
    headers.push(name, raw[index + 1] ?? '')
  }
  if (cookies !== undefined) headers.push('Cookie', cookies)
  headers.push('X-Forwarded-For', origin.for, 'X-Forwarded-Proto', origin.proto)
  headers.push('X-Forwarded-Host', origin.host, 'X-Request-Id', requestId)
  if (upgrade) headers.push('Connection', 'Upgrade', 'Upgrade', 'websocket')
  else headers.push(...framing(request))
  return headers
}

/** HTTP/1.0, as health checks speak it, may come without a host; what goes on is HTTP/1.1 and may not. */
const missingHost = ({ headers }: IncomingMessage): string[] =>
  headers.host === undefined ? ['Host', 'localhost'] : []

/** The body is framed anew: how it came says nothing about how it goes on. */
function framing(request: IncomingMessage): string[] {
  if (request.headers['transfer-encoding'] !== undefined) return ['Transfer-Encoding', 'chunked']
  const mayHaveBody = !['GET', 'HEAD', 'OPTIONS', 'DELETE', 'TRACE'].includes(request.method ?? 'GET')
  return request.headers['content-length'] === undefined && mayHaveBody ? ['Content-Length', '0'] : []
}

/** The header by which a target ends a session. */
export const sessionEnded = 'x-session-ended'

/** The headers of an answer for the client, names and values in turn. */
export function answerHeaders(answer: IncomingMessage, requestId: string, extra: string[]): string[] {
  const dropped = namedByConnection(answer.headers.connection)
  const headers: string[] = []
  const raw = answer.rawHeaders
  for (let index = 0; index + 1 < raw.length; index += 2) {
    const name = raw[index] ?? ''
    const lower = name.toLowerCase()
    const isDropped = hopByHop.has(lower) || lower === sessionEnded || dropped.has(lower)
    if (!isDropped) headers.push(name, raw[index + 1] ?? '')
  }
  if (answer.headers['x-request-id'] === undefined) headers.push('X-Request-Id', requestId)
  headers.push(...extra)
  return headers
}

function namedByConnection(connection: string | undefined): Set<string> {
  if (connection === undefined || /^(keep-alive|close)$/i.test(connection)) return none
  const names = connection.split(',').map((name) => name.trim().toLowerCase())
  return new Set(names.filter((name) => !endToEnd.has(name)))
}

const none: Set<string> = new Set()

/** Whether a body follows the head of a request. */
export const hasBody = ({ headers }: IncomingMessage): boolean =>
  headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
