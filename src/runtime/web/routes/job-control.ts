import type { FastifyInstance, FastifyRequest } from 'fastify'
import { messageOf } from '../../../core/errors.ts'
import type { AuditLog } from '../../../platform/access.ts'
import type { Log } from '../../../platform/log.ts'
import type { QueueBackend } from '../../../platform/queues/backend.ts'
import { cancelChannel } from '../../../platform/queues/cancel-watch.ts'
import { JOB_FINISHED, JOB_NOT_FINISHED, JOB_NOT_FOUND } from '../../../platform/queues/errors.ts'
import type { Ledger } from '../../../platform/queues/ledger.ts'
import type { WakeBus } from '../../../platform/wake-bus.ts'
import type { JobFinder } from '../job-finder.ts'
import { isFinished, JobDocument } from '../job-view.ts'
import { problems } from '../open-api.ts'
import { assertJobId, JobPath } from './job-reading.ts'

export interface JobControlOptions {
  ledger: Pick<Ledger, 'cancel' | 'retry'>
  backend: Pick<QueueBackend, 'remove'>
  finder: JobFinder
  audit: AuditLog
  wakeBus: Pick<WakeBus, 'publish'>
  log: Log
}

type ById = { Params: { id: string } }

/** `POST /v1/jobs/:id/retry` and `DELETE /v1/jobs/:id`. */
export function addJobControl(server: FastifyInstance, options: JobControlOptions): void {
  server.post<ById>(
    '/v1/jobs/:id/retry',
    {
      config: { roles: [], bodyOptional: true },
      schema: {
        tags: ['jobs'],
        summary: 'Runs a finished job again',
        description: 'Its attempts begin anew; its payload and history stay.',
        security: [{ key: [] }],
        params: JobPath,
        response: {
          202: JobDocument,
          ...problems({ 404: 'There is no such job', 409: 'It is not finished' }),
        },
      },
    },
    async (request, reply) => {
      const job = await retry(options, request.params.id, () => record(options, request, 'job.retry'))
      return reply.code(202).header('cache-control', 'no-store').send(job)
    },
  )
  server.delete<ById>(
    '/v1/jobs/:id',
    {
      config: { roles: [], bodyOptional: true },
      schema: {
        tags: ['jobs'],
        summary: 'Cancels a job',
        description:
          'One that is not running is cancelled at once: 200. One that runs is asked by its signal, on whichever ' +
          'node it is: 202, and it is `cancelled` once its handler has let go.',
        security: [{ key: [] }],
        params: JobPath,
        response: {
          200: JobDocument,
          202: JobDocument,
          ...problems({ 404: 'There is no such job', 409: 'It is finished already' }),
        },
      },
    },
    async (request, reply) => {
      const tell = () => record(options, request, 'job.cancel')
      const { status, job } = await cancel(options, request.params.id, tell)
      return reply.code(status).header('cache-control', 'no-store').send(job)
    },
  )
}

// The audit log is written first: what cannot be told of is not done, and 503 means that nothing was changed. An entry
// may so tell of something that was no longer possible a moment later; nothing is ever done without one.

async function retry(
  options: JobControlOptions,
  id: string,
  tell: () => Promise<void>,
): Promise<JobDocument> {
  assertJobId(id)
  const before = await found(options, id)
  if (!isFinished(before)) throw JOB_NOT_FINISHED({ id, state: before.state })
  await tell()
  const result = await options.ledger.retry(id)
  const job = await found(options, id)
  if (result === 'retried') return job
  // Work without a row cannot be set back: it is no more once it has ended.
  throw JOB_NOT_FINISHED({ id, state: job.state })
}

async function cancel(
  options: JobControlOptions,
  id: string,
  tell: () => Promise<void>,
): Promise<{ status: number; job: JobDocument }> {
  assertJobId(id)
  const before = await found(options, id)
  if (isFinished(before)) throw JOB_FINISHED({ id, state: before.state })
  await tell()
  const result = await options.ledger.cancel(id)
  const job = await found(options, id)
  switch (result) {
    case 'cancelled':
      return { status: 200, job }
    case 'requested':
      wake(options, id)
      return { status: 202, job }
    case 'finished':
      throw JOB_FINISHED({ id, state: job.state })
    case 'missing':
      if (isFinished(job)) throw JOB_FINISHED({ id, state: job.state })
      if (await options.backend.remove(job.queue, id))
        return { status: 200, job: { ...job, state: 'cancelled' } }
      wake(options, id)
      return { status: 202, job }
  }
}

async function found(options: JobControlOptions, id: string): Promise<JobDocument> {
  const job = await options.finder.find(id)
  if (!job) throw JOB_NOT_FOUND({ id })
  return job
}

/** A hint that saves the holder's next look at its rows; without it the cancel takes 2 s longer. */
function wake(options: JobControlOptions, id: string): void {
  options.wakeBus
    .publish(cancelChannel, id)
    .catch((error: unknown) => options.log.warn({ reason: messageOf(error) }, 'A wake was lost'))
}

const record = (options: JobControlOptions, request: FastifyRequest<ById>, action: string): Promise<void> =>
  options.audit.record({
    actor: request.principal?.name ?? 'unknown',
    action,
    subject: request.params.id,
    details: { requestId: request.id, key: request.principal?.owner },
  })
