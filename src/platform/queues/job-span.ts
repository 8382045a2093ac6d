import type { Span, Tracing } from '../tracing.ts'
import type { ActiveRun } from './active-run.ts'
import type { RunOutcome } from './job-metrics.ts'

/** The span of one run, caused by the request that brought the job. */
export function beginSpan(
  tracing: Tracing | undefined,
  { attempt, delivery, origin }: ActiveRun,
): Span | undefined {
  return tracing?.begin(`job ${delivery.name}`, {
    kind: 'consumer',
    parent: origin?.traceparent,
    attributes: {
      'messaging.system': 'baton',
      'messaging.destination.name': delivery.queue,
      'baton.job.id': delivery.id,
      'baton.job.name': delivery.name,
      'baton.job.attempt': attempt,
    },
  })
}

export function endSpan({ span }: ActiveRun, outcome: RunOutcome): void {
  const failed = outcome === 'failed' || outcome === 'retried'
  span?.end({ 'baton.job.outcome': outcome }, failed ? outcome : undefined)
}
