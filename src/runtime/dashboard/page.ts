import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Principal } from '../../platform/access.ts'
import type { Hole, Html } from './html.ts'
import type { Session } from './session.ts'

/**
 * One room of the dashboard: an entry of the navigation and the routes behind it. The gate stands before all of them:
 * whoever gets in is a viewer or an operator, and every POST is an operator's and carries the token of its form.
 */
export interface DashboardPage {
  nav?: NavEntry
  /** What the overview says of it. */
  line?: OverviewLine
  /** `server` has the prefix of the dashboard: a route is `/jobs`, a link `${home}/jobs`. */
  register(server: FastifyInstance, shell: Shell): void | Promise<void>
}

export interface NavEntry {
  /** As in links. */
  href: string
  label: string
  /** Shown to nobody else. */
  operatorOnly?: boolean
}

export interface OverviewLine {
  label: string
  /** As in links. */
  href: string
  /** One line: what an operator has to know. It is read each few seconds, so it must cost little. */
  read(): Promise<Hole>
}

/** Where the dashboard stands. */
export const home = '/dashboard'

/** What pages have in common. */
export interface Shell {
  send(request: FastifyRequest, reply: FastifyReply, view: View): FastifyReply
  /** For faults that a mounted plugin would answer in a way of its own. */
  fail(reply: FastifyReply, error: unknown): FastifyReply
  visitor(request: FastifyRequest): Visitor
  /** @throws ROLE_MISSING */
  assertOperator(request: FastifyRequest): void
  /** To stand in every form that is posted. */
  token(request: FastifyRequest): Html
  /** Epoch ms, to which times on the page relate. */
  now(): number
}

export interface View {
  title: string
  content: Html
  status?: number
  /** Regions of the page (elements with `data-live`) are read again every few seconds. */
  live?: boolean
  /** When its figures were read, if that was not just now. ISO 8601. */
  readAt?: string
  /** Which entry of the navigation is the current one; its href. */
  active?: string
}

export interface Visitor {
  session: Session
  /** As the key is now, which may be less than it was at log-in. */
  principal: Principal
  isOperator: boolean
}

declare module 'fastify' {
  interface FastifyContextConfig {
    /** For everybody: the log-in page and its stylesheet. */
    withoutLogIn?: boolean
    /** A POST that a viewer may send. */
    viewerMayPost?: boolean
  }
  interface FastifyRequest {
    visitor: Visitor | null
  }
}
