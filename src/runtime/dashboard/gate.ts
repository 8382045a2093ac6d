import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { type Authenticator, assertRole } from '../../platform/access.ts'
import { FORM_NOT_OURS, LOG_IN_NEEDED } from './errors.ts'
import { formOf } from './form.ts'
import { home, type Visitor } from './page.ts'
import type { Sessions } from './session.ts'

export const sessionCookie = 'baton_dashboard'

export interface GateOptions {
  sessions: Sessions
  authenticator: Authenticator
  /** Answers a visitor who came from another site. */
  sendAgain(request: FastifyRequest, reply: FastifyReply): FastifyReply
}

/**
 * Stands before every route of the scope, those of mounted plugins included: what does not say that it is open is
 * closed. A route that somebody adds later is behind it without a thought.
 */
export function addGate(server: FastifyInstance, options: GateOptions): void {
  server.decorateRequest('visitor', null)
  server.addHook('onRequest', async (request, reply) => {
    if (isWrite(request)) assertSameOrigin(request)
    if (request.routeOptions.config.withoutLogIn === true) return undefined
    const visitor = await findVisitor(options, request)
    if (visitor) {
      enter(request, visitor)
      return undefined
    }
    if (isWrite(request)) throw LOG_IN_NEEDED()
    // A Strict cookie does not come with a link from another site, but with the next request of our own page.
    if (request.headers['sec-fetch-site'] === 'cross-site') return options.sendAgain(request, reply)
    if (!isNavigation(request)) throw LOG_IN_NEEDED()
    return reply.redirect(`${home}/log-in?to=${encodeURIComponent(request.url)}`, 303)
  })
  server.addHook('preHandler', async (request) => {
    if (!isWrite(request) || !request.visitor) return
    if (!options.sessions.isFormToken(request.visitor.session.id, formOf(request).get('token') ?? undefined))
      throw FORM_NOT_OURS()
  })
  // Here rather than at the request, so that no answer goes without: pages that are not found pass no gate.
  server.addHook('onSend', async (_request, reply, payload) => {
    for (const [name, value] of Object.entries(securityHeaders))
      if (!reply.hasHeader(name)) reply.header(name, value)
    return payload
  })
}

/** @throws what says that nobody can tell now, such as DATABASE_UNAVAILABLE */
async function findVisitor(options: GateOptions, request: FastifyRequest): Promise<Visitor | undefined> {
  const session = options.sessions.read(request.cookies[sessionCookie])
  const principal = session && (await options.authenticator.authenticateHash(session.keySha256))
  return session && principal && { session, principal, isOperator: principal.role === 'operator' }
}

/** @throws ROLE_MISSING */
function enter(request: FastifyRequest, visitor: Visitor): void {
  const viewerMay = !isWrite(request) || request.routeOptions.config.viewerMayPost === true
  assertRole(visitor.principal, viewerMay ? ['viewer'] : [])
  request.visitor = visitor
}

const isWrite = ({ method }: FastifyRequest): boolean => method !== 'GET' && method !== 'HEAD'

/** A page that a person asked for, rather than what a page fetches: to that a log-in page would be no answer. */
const isNavigation = ({ headers }: FastifyRequest): boolean =>
  headers['sec-fetch-dest'] === undefined || headers['sec-fetch-dest'] === 'document'

/** Besides the token: what a browser says by itself of where a form comes from. @throws FORM_NOT_OURS */
function assertSameOrigin({ headers }: FastifyRequest): void {
  const site = headers['sec-fetch-site']
  if (site !== undefined && site !== 'same-origin' && site !== 'none') throw FORM_NOT_OURS()
  const { origin } = headers
  if (origin === undefined) return
  if (!URL.canParse(origin) || new URL(origin).host !== headers.host) throw FORM_NOT_OURS()
}

export const contentPolicy =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
  "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

const securityHeaders: Record<string, string> = {
  'cache-control': 'no-store',
  'content-security-policy': contentPolicy,
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  // Not `no-referrer`: with it browsers send `Origin: null` with our own forms.
  'referrer-policy': 'same-origin',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'x-robots-tag': 'noindex, nofollow',
}
