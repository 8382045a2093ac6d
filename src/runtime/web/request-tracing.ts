import type { ServerResponse } from 'node:http'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { Span, Tracing } from '../../platform/tracing.ts'
import { traceparentOf } from './request-origin.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** Null where nothing is traced. */
    span: Span | null
  }
}

/** A span for each request of the API. Not for listens, which mostly wait, nor for what asks for the health. */
export function addRequestTracing(server: FastifyInstance, tracing: Tracing | undefined): void {
  server.decorateRequest('span', null)
  if (!tracing) return
  server.addHook('onRequest', (request, reply, done) => {
    if (isTraced(request)) {
      const span = begin(tracing, request)
      request.span = span
      // Not onResponse, which is not called when the client goes before its answer.
      reply.raw.once('close', () => end(span, reply.raw))
    }
    done()
  })
}

function end(span: Span, { writableFinished, statusCode: status }: ServerResponse): void {
  if (!writableFinished) return span.end({}, 'the client has gone')
  span.end({ 'http.response.status_code': status }, status >= 500 ? `${status}` : undefined)
}

function isTraced({ routeOptions: { config, url = '' } }: FastifyRequest): boolean {
  return config.roles !== undefined && !url.startsWith('/v1/listen')
}

function begin(tracing: Tracing, request: FastifyRequest): Span {
  const { method, routeOptions, id } = request
  const route = routeOptions.url ?? ''
  const attributes = { 'http.request.method': method, 'http.route': route, 'baton.request.id': id }
  return tracing.begin(`${method} ${route}`, {
    kind: 'server',
    parent: traceparentOf(request.raw),
    attributes,
  })
}
