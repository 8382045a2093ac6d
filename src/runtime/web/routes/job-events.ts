import type { FastifyInstance } from 'fastify'
import { JOB_NOT_FOUND } from '../../../platform/queues/errors.ts'
import { OVERLOADED } from '../errors.ts'
import type { EventStream } from '../event-stream.ts'
import type { EventStreams } from '../event-streams.ts'
import type { JobFinder } from '../job-finder.ts'
import { isFinished, type JobDocument } from '../job-view.ts'
import type { JobWatch } from '../job-watch.ts'
import { problems } from '../open-api.ts'
import { JobPath } from './job-reading.ts'

/** Streams of one process; each costs a connection and a share of a statement four times a second. */
const mostStreams = 2_000
/** Id of the last event: a client that reconnects with it has seen the end. */
const endId = 'end'

/** `GET /v1/jobs/:id/events`: server-sent events `progress` (at once, then on each change) and `end`. */
export function addJobEvents(
  server: FastifyInstance,
  options: { finder: JobFinder; watch: JobWatch; streams: EventStreams },
): void {
  const { finder, watch, streams } = options
  server.get<{ Params: { id: string } }>(
    '/v1/jobs/:id/events',
    {
      config: { roles: ['producer', 'viewer'] },
      exposeHeadRoute: false,
      schema: {
        tags: ['jobs'],
        summary: 'Progress and end of a job, as server-sent events',
        description:
          '`event: progress` comes at once and then whenever the job changes, `event: end` when it is finished; ' +
          'both carry the job. A comment line each 20 s keeps the connection open. A client that reconnects after ' +
          'the end (`Last-Event-ID: end`) is answered 204, which makes an EventSource stop.',
        security: [{ key: [] }],
        params: JobPath,
        response: {
          200: { description: 'text/event-stream' },
          204: { description: 'The end was seen already' },
          ...problems({ 404: 'There is no such job' }),
        },
      },
    },
    async (request, reply) => {
      const { id } = request.params
      if (watch.watchers >= mostStreams) {
        throw OVERLOADED({ reason: `${watch.watchers} streams are open` }, { retryAfterMs: 5_000 })
      }
      const job = await finder.find(id)
      if (!job) throw JOB_NOT_FOUND({ id: id.slice(0, 64) })
      if (request.headers['last-event-id'] === endId && isFinished(job)) return reply.code(204).send()
      reply.hijack()
      const headers = { 'x-request-id': request.id }
      const subscription: { leave: () => void } = { leave: () => undefined }
      const stream = streams.open(reply.raw, headers, () => subscription.leave())
      const tell = createTeller(stream)
      tell(job)
      if (stream.open) subscription.leave = watch.watch(id, tell)
      return reply
    },
  )
}

/** Sends a job when it differs from what was sent last; the last event is `end`. */
function createTeller(stream: EventStream): (job: JobDocument | undefined) => void {
  let sent = ''
  return (job) => {
    if (!job) {
      // Pruned, or forgotten by the queue engine: nothing more will ever be known.
      stream.send({ event: 'end', id: endId, data: null })
      return stream.end()
    }
    const text = JSON.stringify(job)
    if (isFinished(job)) {
      if (stream.send({ event: 'end', id: endId, data: job })) stream.end()
      return
    }
    // What a slow reader has not taken is told in the next round, then in its newest form.
    if (text !== sent && stream.send({ event: 'progress', data: job })) sent = text
  }
}
