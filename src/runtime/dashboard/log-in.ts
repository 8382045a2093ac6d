import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Clock } from '../../core/clock.ts'
import { type BatonError, messageOf } from '../../core/errors.ts'
import { withLimit } from '../../core/lifecycle.ts'
import { KEY_INVALID, ROLE_MISSING } from '../../platform/access/errors.ts'
import {
  type AuditLog,
  type Authenticator,
  type KeyStore,
  keyHash,
  type Principal,
} from '../../platform/access.ts'
import type { Log } from '../../platform/log.ts'
import { FORM_NOT_OURS, LOG_IN_THROTTLED } from './errors.ts'
import { fieldOf, formOf, queryOf } from './form.ts'
import { sessionCookie } from './gate.ts'
import { type Html, html } from './html.ts'
import { addressOf, createLogInLimit } from './log-in-limit.ts'
import { home } from './page.ts'
import { newNonce, type Sessions } from './session.ts'
import type { SendBare } from './shell.ts'

export interface LogInOptions {
  sessions: Sessions
  authenticator: Authenticator
  keys: Pick<KeyStore, 'any'>
  audit: AuditLog
  clock: Clock
  log: Log
  /** Whether BATON_API_KEYS has any. */
  environmentKeys: boolean
  sendBare: SendBare
}

const nonceCookie = 'baton_log_in'
const nonceLifeS = 3_600

/** `/log-in` and `/log-out`. */
export function addLogIn(server: FastifyInstance, options: LogInOptions): void {
  const { sessions } = options
  const limit = createLogInLimit(options.clock)
  const hasKeys = createKeyLook(options)

  const show = async (
    request: FastifyRequest,
    reply: FastifyReply,
    fault?: BatonError,
  ): Promise<FastifyReply> => {
    if (!(await hasKeys())) return options.sendBare(reply, { title: 'No API key yet', content: firstKey })
    const nonce = request.cookies[nonceCookie] ?? newNonce()
    reply.setCookie(nonceCookie, nonce, { ...cookieOf(request), maxAge: nonceLifeS })
    if (fault?.retryAfterMs !== undefined)
      reply.header('retry-after', String(Math.ceil(fault.retryAfterMs / 1_000)))
    const to = destinationOf(fieldOf(queryOf(request), 'to') ?? fieldOf(formOf(request), 'to'))
    return options.sendBare(reply, {
      title: 'Log in',
      content: logInForm({ token: sessions.formToken(nonce), to, fault }),
      status: fault?.traits.status ?? 200,
    })
  }

  server.get('/log-in', { config: { withoutLogIn: true } }, (request, reply) => show(request, reply))

  server.post('/log-in', { config: { withoutLogIn: true } }, async (request, reply) => {
    const form = formOf(request)
    const address = addressOf(request.socket.remoteAddress ?? 'unknown', request.headers['x-forwarded-for'])
    try {
      const nonce = request.cookies[nonceCookie]
      if (!nonce || !sessions.isFormToken(nonce, form.get('token') ?? undefined)) throw FORM_NOT_OURS()
      limit.assertRoom(address)
      const key = fieldOf(form, 'key') ?? ''
      const principal = await options.authenticator.authenticate(key)
      if (!principal) {
        limit.noteFailure(address)
        throw KEY_INVALID()
      }
      if (principal.role === 'producer')
        throw ROLE_MISSING({ role: 'producer', needed: 'viewer or operator' })
      const { cookie } = sessions.begin(principal, keyHash(key))
      reply.setCookie(sessionCookie, cookie, { ...cookieOf(request), maxAge: sessions.lifeMs / 1_000 })
      reply.clearCookie(nonceCookie, cookieOf(request))
      await recordLogIn(options, principal, address)
      return reply.redirect(destinationOf(fieldOf(form, 'to')), 303)
    } catch (error) {
      if (!isRefusal(error)) throw error
      options.log.warn({ code: error.code, address }, 'A log-in to the dashboard was refused')
      return show(request, reply, error)
    }
  })

  server.post('/log-out', { config: { viewerMayPost: true } }, (request, reply) =>
    reply.clearCookie(sessionCookie, cookieOf(request)).redirect(`${home}/log-in`, 303),
  )
}

const isRefusal = (error: unknown): error is BatonError =>
  [FORM_NOT_OURS, LOG_IN_THROTTLED, KEY_INVALID, ROLE_MISSING].some((kind) => kind.is(error))

/** A log-in with a key of the environment works while Postgres is away: that is when somebody has to look. */
async function recordLogIn(options: LogInOptions, principal: Principal, address: string): Promise<void> {
  const entry = {
    actor: principal.name,
    action: 'dashboard.log-in',
    subject: principal.owner,
    details: { address, role: principal.role },
  }
  await withLimit(options.audit.record(entry), 2_000).catch((error: unknown) =>
    options.log.warn(
      { reason: messageOf(error), owner: principal.owner },
      'A log-in is not in the audit log',
    ),
  )
}

/** The page is open to all, so it must not cost a statement for each who asks. A key that was there is enough. */
function createKeyLook({ keys, clock, environmentKeys }: LogInOptions): () => Promise<boolean> {
  let present = environmentKeys
  let lookedAt = Number.NEGATIVE_INFINITY
  let looking: Promise<boolean> | undefined
  const look = async (): Promise<boolean> => {
    present = await keys.any()
    lookedAt = clock.monotonicMs()
    return present
  }
  return async () => {
    if (present || clock.monotonicMs() - lookedAt < 1_000) return present
    looking ??= look().finally(() => (looking = undefined))
    return looking
  }
}

const cookieOf = (request: FastifyRequest) => ({
  path: home,
  httpOnly: true,
  sameSite: 'strict' as const,
  // What a router in front says decides only over whoever sent the header.
  secure: request.protocol === 'https' || String(request.headers['x-forwarded-proto']).startsWith('https'),
})

/** Only our own pages: else a link to the log-in page could lead anywhere. */
const destinationOf = (to: string | undefined): string =>
  to !== undefined && /^\/dashboard(?:[/?][\w\-./?=&%~+:]*)?$/.test(to) && !to.includes('//') ? to : home

const logInForm = ({
  token,
  to,
  fault,
}: {
  token: string
  to: string
  fault: BatonError | undefined
}): Html =>
  html`${fault && html`<p class="notice notice-bad" role="alert">${fault.message}</p>`}
<form method="post" action="${home}/log-in" class="stack">
  <input type="hidden" name="token" value="${token}">
  <input type="hidden" name="to" value="${to}">
  <input type="text" name="username" value="baton" autocomplete="username" hidden>
  <label for="key">API key</label>
  <input id="key" name="key" type="password" required autofocus autocomplete="current-password" spellcheck="false"
    aria-describedby="key-help">
  <p id="key-help" class="help">One with the role <strong>viewer</strong> (looks) or <strong>operator</strong> (acts).
    <code>baton keys create --role viewer --name NAME</code> makes one.</p>
  <button>Log in</button>
</form>`

const firstKey = html`<p>The dashboard is closed until there is a key. Make one where the application runs:</p>
<pre tabindex="0"><code>baton keys create --role operator --name you</code></pre>
<p>It is shown once. Then <a href="${home}/log-in">log in</a> with it.
  Keys can also be set in the environment, as <code>BATON_API_KEYS=operator:KEY</code>.</p>`
