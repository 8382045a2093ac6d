import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** A span as OTLP/HTTP 1.0 has it in JSON, as far as the tests look. */
export interface ReceivedSpan {
  name: string
  kind: number
  traceId: string
  spanId: string
  parentSpanId?: string
  status: { code?: number; message?: string }
  attributes: Record<string, string | number | undefined>
  /** Of the process that sent it. */
  resource: Record<string, string | number | undefined>
}

/** Takes traces, as a collector of OpenTelemetry does. */
export interface Collector {
  endpoint: string
  spans: ReceivedSpan[]
  /** Takes requests and answers none. */
  hang(): void
  close(): Promise<void>
}

type Attributes = { key: string; value: { stringValue?: string; intValue?: number } }[]
interface Sent {
  resourceSpans: {
    resource: { attributes: Attributes }
    scopeSpans: { spans: (Omit<ReceivedSpan, 'attributes' | 'resource'> & { attributes: Attributes })[] }[]
  }[]
}

const valuesOf = (attributes: Attributes): Record<string, string | number | undefined> =>
  Object.fromEntries(attributes.map(({ key, value }) => [key, value.stringValue ?? value.intValue]))

export async function startCollector(): Promise<Collector> {
  const spans: ReceivedSpan[] = []
  let hanging = false
  const take = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const text = Buffer.concat((await request.toArray()) as Buffer[]).toString()
    if (request.url === '/v1/traces') {
      for (const { resource, scopeSpans } of (JSON.parse(text) as Sent).resourceSpans) {
        for (const span of scopeSpans.flatMap((scope) => scope.spans)) {
          spans.push({
            ...span,
            attributes: valuesOf(span.attributes),
            resource: valuesOf(resource.attributes),
          })
        }
      }
    }
    response.setHeader('content-type', 'application/json').end('{}')
  }
  const server = createServer((request, response) => {
    if (!hanging) void take(request, response)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    spans,
    hang: () => {
      hanging = true
    },
    close: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
