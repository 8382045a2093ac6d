import type { FastifyInstance, FastifyRequest } from 'fastify'

/** Largest form: a page of selected jobs takes some kilobytes. */
export const formBytes = 65_536

/** Forms as browsers send them; every route of the dashboard with a body takes nothing else. */
export function addFormParser(server: FastifyInstance): void {
  server.addContentTypeParser(
    'application/x-www-form-urlencoded',
    { parseAs: 'string', bodyLimit: formBytes },
    (_request, text, done) => done(null, new URLSearchParams(text as string)),
  )
}

export const formOf = (request: FastifyRequest): URLSearchParams =>
  request.body instanceof URLSearchParams ? request.body : new URLSearchParams()

export const queryOf = (request: FastifyRequest): URLSearchParams =>
  new URLSearchParams(request.url.split('?', 2)[1] ?? '')

/** A field that is filled in, without the white space around it. */
export function fieldOf(fields: URLSearchParams, name: string): string | undefined {
  const text = fields.get(name)?.trim()
  return text === '' ? undefined : text
}

/** A field for a statement, without what Postgres takes for no text. */
export const textOf = (fields: URLSearchParams, name: string): string | undefined =>
  fieldOf(fields, name)?.replaceAll('\0', '').toWellFormed()
