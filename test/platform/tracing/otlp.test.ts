import { expect, it, onTestFinished } from 'vitest'
import { createLog } from '../../../src/platform/log.ts'
import { createOtlpTracing } from '../../../src/platform/tracing/otlp.ts'
import type { Tracing } from '../../../src/platform/tracing.ts'
import { type Collector, startCollector } from '../../support/collector.ts'

const traceId = '0af7651916cd43dd8448eb211c80319c'
const parentId = 'b7ad6b7169203331'

async function start(): Promise<{ collector: Collector; tracing: Tracing }> {
  const collector = await startCollector()
  onTestFinished(() => collector.close())
  const log = createLog({ level: 'silent', process: 'test' })
  const endpoint = `${collector.endpoint}/`
  const tracing = await createOtlpTracing({ endpoint, tier: 'web', site: 'north', version: '1.2.3', log })
  return { collector, tracing }
}

it('sends a span with its cause, its attributes and who made it', async () => {
  const { collector, tracing } = await start()
  const parent = `00-${traceId}-${parentId}-01`
  const request = tracing.begin('POST /v1/jobs', {
    kind: 'server',
    parent,
    attributes: { 'http.route': '/v1/jobs' },
  })
  const job = tracing.begin('job report', { kind: 'consumer', parent: request.traceparent })
  job.end({ 'baton.job.attempt': 2 }, 'failed')
  request.end({ 'http.response.status_code': 202 })
  await tracing.close(5_000)
  const [jobSpan, requestSpan] = collector.spans
  expect(requestSpan).toMatchObject({
    name: 'POST /v1/jobs',
    kind: 2,
    traceId,
    parentSpanId: parentId,
    attributes: { 'http.route': '/v1/jobs', 'http.response.status_code': 202 },
    resource: {
      'service.name': 'baton',
      'service.namespace': 'north',
      'service.version': '1.2.3',
      'baton.tier': 'web',
    },
  })
  expect(request.traceparent).toBe(`00-${traceId}-${requestSpan?.spanId}-01`)
  expect(jobSpan).toMatchObject({
    name: 'job report',
    kind: 5,
    traceId,
    parentSpanId: requestSpan?.spanId,
    status: { code: 2, message: 'failed' },
    attributes: { 'baton.job.attempt': 2 },
  })
})

it('begins a trace of its own without a cause, and sends none of a trace that is not sampled', async () => {
  const { collector, tracing } = await start()
  const unsampled = tracing.begin('not sampled', { kind: 'server', parent: `00-${traceId}-${parentId}-00` })
  expect(unsampled.traceparent).toMatch(new RegExp(`^00-${traceId}-[0-9a-f]{16}-00$`))
  unsampled.end()
  tracing.begin('alone', { kind: 'client' }).end()
  await tracing.close(5_000)
  expect(collector.spans.map(({ name }) => name)).toEqual(['alone'])
  expect(collector.spans[0]?.parentSpanId ?? '').toBe('')
})

it('does not hold up a stop for a collector that does not answer', async () => {
  const { collector, tracing } = await start()
  collector.hang()
  tracing.begin('unsent', { kind: 'client' }).end()
  const begunAt = performance.now()
  await tracing.close(200)
  expect(performance.now() - begunAt).toBeLessThan(4_000)
})
