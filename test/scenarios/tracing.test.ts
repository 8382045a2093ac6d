import { expect, it } from 'vitest'
import { type ReceivedSpan, startCollector } from '../support/collector.ts'
import { atEndOfTest, eventually } from '../support/processes.ts'
import { openPushSite } from '../support/push-site.ts'

const traceId = '4bf92f3577b34da6a3ce929d0e0e4736'

it('a trace leads from the request to the job and its failure in another process, and to a cloud push', async () => {
  const collector = await startCollector()
  atEndOfTest(() => collector.close())
  const site = await openPushSite('redis', { OTEL_EXPORTER_OTLP_ENDPOINT: collector.endpoint, SITE: 'north' })
  const web = await site.startWeb()
  const worker = await site.startWorker()
  const enqueued = await web.call('POST', '/v1/jobs', {
    body: { name: 'report', payload: { body: 'no body', column: 'x' } },
    headers: { traceparent: `00-${traceId}-00f067aa0ba902b7-01` },
  })
  expect(enqueued.status).toBe(202)
  const { id } = enqueued.json<{ id: string }>()
  const [device = ''] = await site.devices(1)
  await web.call('POST', '/v1/pushes', { body: { to: { device }, confirmMs: 0 } })
  await eventually(() => expect(site.cloud.received).toHaveLength(1), { timeoutMs: 30_000 })
  await eventually(
    async () => {
      const job = await web.call('GET', `/v1/jobs/${id}`)
      expect(job.json<{ error?: object }>().error).toBeDefined()
    },
    { timeoutMs: 30_000 },
  )
  // What has ended is sent at the stop, if not before.
  for (const { pid } of [web.process, worker]) process.kill(pid, 'SIGTERM')
  await Promise.all([web.process.exit, worker.exit])

  const find = (name: string): ReceivedSpan | undefined => collector.spans.find((span) => span.name === name)
  const [request, job, push] = [find('POST /v1/jobs'), find('job report'), find('push webhook')]
  expect(request).toMatchObject({
    traceId,
    parentSpanId: '00f067aa0ba902b7',
    resource: { 'service.namespace': 'north' },
  })
  expect(job).toMatchObject({
    traceId,
    parentSpanId: request?.spanId,
    attributes: { 'baton.job.id': id, 'baton.job.outcome': expect.stringMatching(/failed|retried/) },
    resource: { 'baton.tier': 'worker' },
  })
  expect(push).toMatchObject({ kind: 3, attributes: { 'baton.push.result': 'accepted' } })
}, 60_000)
