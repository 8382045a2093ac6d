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
  server.addHook('onRequest', (request, _reply, done) => {
    if (isTraced(request)) request.span = begin(tracing, request)
    done()
  })
  server.addHook('onResponse', (request, reply, done) => {
    const { statusCode: status } = reply
    request.span?.end({ 'http.response.status_code': status }, status >= 500 ? `${status}` : undefined)
    done()
  })
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
