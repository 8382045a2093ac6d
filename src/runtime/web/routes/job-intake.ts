import type { FastifyInstance, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import type { Clock } from '../../../core/clock.ts'
import type { Acceptance, NewJobInput } from '../../../platform/queues/accept.ts'
import { INPUT_INVALID } from '../../../platform/queues/errors.ts'
import type { Accepted } from '../../../platform/queues/ledger.ts'
import type { Answer, Idempotency, IdempotentRequest } from '../idempotency.ts'
import { JobRequest, type JobRequestReader, mostInBatch, type ReadJob } from '../job-request.ts'
import { jobStates } from '../job-view.ts'
import { problems } from '../open-api.ts'
import { originOf } from '../request-origin.ts'
import type { WebMetrics } from '../web-metrics.ts'

const AcceptedJob = Type.Object({
  id: Type.String({ format: 'uuid' }),
  name: Type.String(),
  state: Type.Enum([...jobStates], { description: '`waiting` or `delayed`, unless it is a duplicate' }),
  duplicate: Type.Optional(
    Type.Literal(true, {
      description: 'The dedupe key was taken: `id` is the older job, and no other was made',
    }),
  ),
})

export interface JobIntakeOptions {
  clock: Clock
  acceptance: Acceptance
  reader: JobRequestReader
  idempotency: Idempotency
  metrics: WebMetrics
}

/** `POST /v1/jobs`, the path that has to be fast. The answer is written by hand: names and ids need no escaping. */
export function addJobIntake(server: FastifyInstance, options: JobIntakeOptions): void {
  server.post(
    '/v1/jobs',
    {
      config: { roles: ['producer'], intake: true },
      schema: {
        tags: ['jobs'],
        summary: 'Takes in a job, or up to 1,000 at once',
        description:
          'When 202 is answered the jobs are committed and run at least once, whatever dies. Of an array nothing is ' +
          'taken unless all of it is valid. With an `Idempotency-Key` (1 to 255 printable characters) the same key ' +
          'and body give the same answer for 24 hours; the header `Idempotency-Replayed: true` marks the repetition.',
        security: [{ key: [] }],
        headers: Type.Object({
          'idempotency-key': Type.Optional(Type.String({ minLength: 1, maxLength: 255 })),
        }),
        body: Type.Union([JobRequest, Type.Array(JobRequest, { minItems: 1, maxItems: mostInBatch })]),
        response: {
          202: Type.Union([AcceptedJob, Type.Object({ jobs: Type.Array(AcceptedJob) })]),
          ...problems({
            400: 'It does not fit; `errors` lists every fault',
            404: 'There is no job of that name',
            409: 'The Idempotency-Key was used for another request',
            413: 'It is larger than 1 MiB',
            415: 'It is not JSON',
          }),
        },
      },
    },
    async (request, reply) => {
      const jobs = options.reader.read(request.body, options.clock.now())
      const key = request.headers['idempotency-key']
      const text = key === undefined ? await take(options, request, jobs) : undefined
      if (text !== undefined) return reply.code(202).type(json).send(text)
      const answer = await takeOnce(options, request, jobs)
      if (answer.replayed) reply.header('idempotency-replayed', 'true')
      return reply.code(202).type(json).send(answer.text)
    },
  )
}

const json = 'application/json; charset=utf-8'
/** What a client may send as Idempotency-Key: it stands in an index, and in a line of a problem. */
const idempotencyKey = /^[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?$/

async function take(options: JobIntakeOptions, request: FastifyRequest, jobs: ReadJob[]): Promise<string> {
  const accepted = await options.acceptance.accept(inputsOf(request, jobs))
  countAccepted(options.metrics, jobs, accepted)
  return textOf({ request, jobs, accepted })
}

async function takeOnce(
  options: JobIntakeOptions,
  request: FastifyRequest,
  jobs: ReadJob[],
): Promise<Answer & { replayed: boolean }> {
  let handOver = (): void => undefined
  const prepared = await options.acceptance.prepare(inputsOf(request, jobs))
  const answer = await options.idempotency.once(idempotentRequest(request), async (client) => {
    const taken = await options.acceptance.acceptIn(client, prepared)
    handOver = () => {
      taken.handOver()
      countAccepted(options.metrics, jobs, taken.accepted)
    }
    const text = textOf({ request, jobs, accepted: taken.accepted })
    return { status: 202, text }
  })
  handOver()
  return answer
}

/** @throws INPUT_INVALID for a key that is no plain text of sane length */
function idempotentRequest(request: FastifyRequest): IdempotentRequest {
  const key = request.headers['idempotency-key']
  if (typeof key !== 'string' || !idempotencyKey.test(key)) {
    const fault = { path: '/headers/idempotency-key', message: 'must be 1 to 255 printable characters' }
    throw INPUT_INVALID({ summary: `Idempotency-Key ${fault.message}` }, { faults: [fault] })
  }
  const owner = request.principal?.owner ?? ''
  return { owner, key, route: 'POST /v1/jobs', body: request.rawBody ?? Buffer.alloc(0) }
}

function inputsOf(request: FastifyRequest, jobs: ReadJob[]): NewJobInput[] {
  const context = originOf(request)
  return jobs.map((job) => ({ ...job, context }))
}

function countAccepted(metrics: WebMetrics, jobs: ReadJob[], accepted: Accepted[]): void {
  for (const [index, { job }] of jobs.entries()) {
    if (accepted[index]?.duplicate === false) metrics.accepted(job.name)
  }
}

interface Taken {
  request: FastifyRequest
  jobs: ReadJob[]
  accepted: Accepted[]
}

/** Asks nobody: within a transaction a second connection would be waited for by those who hold all of them. */
function textOf({ request, jobs, accepted }: Taken): string {
  const texts = accepted.map(
    ({ id, duplicate, delayMs, state = delayMs > 0 ? 'delayed' : 'waiting' }, index) => {
      const mark = duplicate ? ',"duplicate":true' : ''
      return `{"id":"${id}","name":"${jobs[index]?.job.name}","state":"${state}"${mark}}`
    },
  )
  return Array.isArray(request.body) ? `{"jobs":[${texts.join(',')}]}` : (texts[0] ?? '')
}
