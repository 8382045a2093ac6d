/**
 * Spans of requests, jobs and cloud pushes, for who asks where the time went across processes. Only made where
 * OTEL_EXPORTER_OTLP_ENDPOINT is set: everywhere else it is undefined, and costs nothing.
 */
export interface Tracing {
  begin(name: string, options: SpanOptions): Span
  /** Sends what has ended. Never throws, and does not wait for a collector that is away beyond `limitMs`. */
  close(limitMs: number): Promise<void>
}

export interface SpanOptions {
  kind: 'server' | 'consumer' | 'client'
  /** W3C traceparent of what caused it. One that is not sampled makes a span that is not sent. */
  parent?: string | undefined
  attributes?: SpanAttributes
}

/** Names are OpenTelemetry's semantic conventions, or begin with `baton.`. Never a payload, a key or a token. */
export type SpanAttributes = Record<string, string | number>

export interface Span {
  /** For what it causes: a job that is enqueued, a request to another service. */
  readonly traceparent: string
  /** `error` marks it as failed. */
  end(attributes?: SpanAttributes, error?: string): void
}
