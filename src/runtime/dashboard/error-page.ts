import type { FastifyInstance, FastifyReply } from 'fastify'
import { BatonError, messageOf } from '../../core/errors.ts'
import type { Log } from '../../platform/log.ts'
import { databaseError } from '../../platform/postgres/postgres.ts'
import { PAGE_NOT_FOUND } from './errors.ts'
import { html } from './html.ts'
import { home } from './page.ts'
import type { SendBare } from './shell.ts'

/** Answers every fault as a page. It has no navigation: who asks may not be known, or Postgres away. */
export function addErrorPage(server: FastifyInstance, answer: AnswerError): void {
  server.setNotFoundHandler((_request, reply) => answer(reply, PAGE_NOT_FOUND()))
  server.setErrorHandler((thrown, _request, reply) => answer(reply, thrown))
}

/** Says what went wrong, and logs what a person has to look at. */
export type AnswerError = (reply: FastifyReply, thrown: unknown) => FastifyReply

export const createAnswerError =
  ({ log, sendBare }: { log: Log; sendBare: SendBare }): AnswerError =>
  (reply, thrown) => {
    const error = nameError(thrown)
    const { status, report } = error.traits
    const requestId = reply.request.id
    if (report)
      log.error(
        { code: error.code, requestId, reason: messageOf(error.cause ?? error) },
        'A page of the dashboard failed',
      )
    if (error.retryAfterMs !== undefined)
      reply.header('retry-after', String(Math.ceil(error.retryAfterMs / 1_000)))
    return sendBare(reply, {
      status,
      title: titles[status] ?? (status >= 500 ? 'Something is wrong' : 'Not done'),
      content: html`<p class="notice notice-bad" role="alert">${error.message}</p>
<p class="help"><code>${error.code}</code> · request <code>${requestId}</code></p>
<p><a href="${home}">Overview</a>${status === 401 && html` · <a href="${home}/log-in">Log in</a>`}</p>`,
    })
  }

const titles: Record<number, string> = {
  401: 'Not logged in',
  403: 'Not allowed',
  404: 'Not found',
  409: 'Not possible now',
  503: 'Not reachable now',
}

/** Unknown faults are told of by the log alone: their texts may hold what nobody is to see. */
function nameError(thrown: unknown): BatonError {
  const error = databaseError(thrown)
  if (error instanceof BatonError) return error
  const status = (error as { statusCode?: unknown }).statusCode
  if (typeof status === 'number' && status < 500)
    return new BatonError(
      'REQUEST_MALFORMED',
      'The request cannot be understood.',
      { status, retry: 'never', report: false },
      { cause: error },
    )
  return new BatonError(
    'INTERNAL',
    'This page has a fault. The log has the details.',
    { status: 500, retry: 'backoff', report: true },
    { cause: error },
  )
}
