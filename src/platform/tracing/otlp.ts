import { messageOf } from '../../core/errors.ts'
import { withLimit } from '../../core/lifecycle.ts'
import type { Log } from '../log.ts'
import type { Span, SpanOptions, Tracing } from '../tracing.ts'

export interface OtlpTracingOptions {
  /** OTEL_EXPORTER_OTLP_ENDPOINT: the base, to which `/v1/traces` is added (OTLP/HTTP 1.0). */
  endpoint: string
  /** `web` or `worker`. */
  tier: string
  /** SITE. */
  site: string
  version: string
  log: Log
}

/**
 * Traces over OTLP/HTTP. The packages are loaded here, since they take a moment and most sites have no collector.
 * What cannot be sent is dropped after 10 s, and at most 2,048 ended spans wait: a collector that is away costs
 * neither memory nor time. OTEL_EXPORTER_OTLP_HEADERS is read by the exporter itself.
 */
export async function createOtlpTracing(options: OtlpTracingOptions): Promise<Tracing> {
  const [api, sdk, { OTLPTraceExporter }, { resourceFromAttributes }] = await Promise.all([
    import('@opentelemetry/api'),
    import('@opentelemetry/sdk-trace'),
    import('@opentelemetry/exporter-trace-otlp-http'),
    import('@opentelemetry/resources'),
  ])
  const exporter = new OTLPTraceExporter({ url: `${options.endpoint.replace(/\/+$/, '')}/v1/traces` })
  const provider = new sdk.TracerProvider({
    resource: resourceFromAttributes({
      'service.name': 'baton',
      'service.namespace': options.site,
      'service.version': options.version,
      'baton.tier': options.tier,
    }),
    sampler: new sdk.ParentBasedSampler({ root: new sdk.AlwaysOnSampler() }),
    spanProcessors: [new sdk.BatchSpanProcessor({ exporter })],
  })
  const tracer = provider.getTracer('baton', options.version)
  const kinds = {
    server: api.SpanKind.SERVER,
    consumer: api.SpanKind.CONSUMER,
    client: api.SpanKind.CLIENT,
  }

  const contextOf = (parent: string | undefined) => {
    const [, traceId = '', spanId = '', flags = ''] = parent?.split('-') ?? []
    if (parent === undefined) return api.ROOT_CONTEXT
    const traceFlags = Number.parseInt(flags, 16)
    return api.trace.setSpanContext(api.ROOT_CONTEXT, { traceId, spanId, traceFlags, isRemote: true })
  }

  const begin = (name: string, { kind, parent, attributes = {} }: SpanOptions): Span => {
    const span = tracer.startSpan(name, { kind: kinds[kind], attributes }, contextOf(parent))
    const { traceId, spanId, traceFlags } = span.spanContext()
    return {
      traceparent: `00-${traceId}-${spanId}-${traceFlags.toString(16).padStart(2, '0')}`,
      end: (more = {}, error) => {
        span.setAttributes(more)
        if (error !== undefined) span.setStatus({ code: api.SpanStatusCode.ERROR, message: error })
        span.end()
      },
    }
  }

  return {
    begin,
    close: async (limitMs) => {
      try {
        await withLimit(provider.shutdown(), limitMs)
      } catch (error) {
        options.log.debug({ reason: messageOf(error) }, 'the last traces were not sent')
      }
    },
  }
}
