import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Clock } from '../../core/clock.ts'
import { assertRole } from '../../platform/access.ts'
import { type Html, html } from './html.ts'
import { type LayoutOptions, renderBare, renderPage } from './layout.ts'
import type { Shell, Visitor } from './page.ts'
import type { Sessions } from './session.ts'

export interface BareView {
  title: string
  content: Html
  head?: Html
  status?: number
}

/** Sends a page without navigation: to those who are not logged in, and when nothing can be read. */
export type SendBare = (reply: FastifyReply, view: BareView) => FastifyReply

const pageType = 'text/html; charset=utf-8'

export const createSendBare =
  (layout: LayoutOptions): SendBare =>
  (reply, view) =>
    reply
      .code(view.status ?? 200)
      .type(pageType)
      .send(renderBare(layout, view))

export interface ShellOptions {
  clock: Clock
  sessions: Sessions
  layout: LayoutOptions
  fail: Shell['fail']
}

export function createShell({ clock, sessions, layout, fail }: ShellOptions): Shell {
  const visitorOf = (request: FastifyRequest): Visitor => {
    // Cannot be: the gate lets nobody else through. If it ever did, nothing may be shown.
    if (!request.visitor) throw new Error('a page without a visitor')
    return request.visitor
  }
  const tokenOf = (request: FastifyRequest): Html =>
    html`<input type="hidden" name="token" value="${sessions.formToken(visitorOf(request).session.id)}">`
  return {
    send: (request, reply, view) =>
      reply
        .code(view.status ?? 200)
        .type(pageType)
        .send(
          renderPage(layout, {
            view,
            visitor: visitorOf(request),
            token: tokenOf(request),
            now: clock.now(),
          }),
        ),
    fail,
    visitor: visitorOf,
    assertOperator: (request) => assertRole(visitorOf(request).principal, []),
    token: tokenOf,
    now: () => clock.now(),
  }
}
