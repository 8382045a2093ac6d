import type { FastifyInstance } from 'fastify'
import { Type } from 'typebox'
import type { Fault } from '../../../core/errors.ts'
import { isId } from '../../../core/ids.ts'
import { INPUT_INVALID, JOB_NOT_FOUND } from '../../../platform/queues/errors.ts'
import { createCheck } from '../../../platform/queues/faults.ts'
import type { JobFilter, Ledger } from '../../../platform/queues/ledger.ts'
import { assertFits } from '../../../platform/queues/registry.ts'
import type { JobFinder } from '../job-finder.ts'
import { documentOf, JobDocument, jobStates } from '../job-view.ts'
import { problems } from '../open-api.ts'

const mostOnPage = 200
const defaultOnPage = 50

const Query = Type.Object(
  {
    state: Type.Optional(Type.Enum([...jobStates])),
    name: Type.Optional(Type.String({ minLength: 1, maxLength: 100, pattern: '^[\\x20-\\x7e]+$' })),
    queue: Type.Optional(Type.String({ minLength: 1, maxLength: 100, pattern: '^[\\x20-\\x7e]+$' })),
    cursor: Type.Optional(Type.String({ minLength: 1, maxLength: 200, pattern: '^[\\x20-\\x7e]+$' })),
    limit: Type.Optional(Type.String({ description: `1 to ${mostOnPage}; ${defaultOnPage} unless said` })),
  },
  { additionalProperties: false },
)

export const JobPath = Type.Object({ id: Type.String({ format: 'uuid' }) })

/** `GET /v1/jobs/:id`, also for work without a row, and the list. */
export function addJobReading(
  server: FastifyInstance,
  options: { ledger: Pick<Ledger, 'list'>; finder: JobFinder },
): void {
  const check = createCheck(Query)

  server.get<{ Params: { id: string } }>(
    '/v1/jobs/:id',
    {
      config: { roles: ['producer', 'viewer'] },
      schema: {
        tags: ['jobs'],
        summary: 'One job',
        security: [{ key: [] }],
        params: JobPath,
        response: { 200: JobDocument, ...problems({ 404: 'There is no such job' }) },
      },
    },
    async (request, reply) => {
      const job = await options.finder.find(request.params.id)
      if (!job) throw JOB_NOT_FOUND({ id: request.params.id.slice(0, 64) })
      return reply.header('cache-control', 'no-store').send(job)
    },
  )

  server.get(
    '/v1/jobs',
    {
      config: { roles: ['viewer'] },
      schema: {
        tags: ['jobs'],
        summary: 'Jobs, the newest first',
        description:
          'A page has `limit` jobs (50 unless said, 200 at most). Give `cursor` back for the next one.',
        security: [{ key: [] }],
        querystring: Query,
        response: {
          200: Type.Object({ jobs: Type.Array(JobDocument), cursor: Type.Optional(Type.String()) }),
          ...problems({ 400: 'A parameter does not fit' }),
        },
      },
    },
    async (request, reply) => {
      const page = await options.ledger.list(filterOf(request.query, check))
      return reply.header('cache-control', 'no-store').send({
        jobs: page.jobs.map(documentOf),
        ...(page.cursor === undefined ? {} : { cursor: page.cursor }),
      })
    },
  )
}

/** @throws INPUT_INVALID with every parameter that does not fit */
function filterOf(query: unknown, check: (value: unknown) => Fault[]): JobFilter {
  assertFits(check(query))
  const { limit, ...filter } = query as Omit<JobFilter, 'limit'> & { limit?: string }
  const count = limit === undefined ? defaultOnPage : Number(limit)
  if (!/^\d{1,3}$/.test(limit ?? '1') || count < 1 || count > mostOnPage) {
    const fault = { path: '/limit', message: `must be a whole number from 1 to ${mostOnPage}` }
    throw INPUT_INVALID({ summary: `${fault.path} ${fault.message}` }, { faults: [fault] })
  }
  return { ...filter, limit: count }
}

/** @throws JOB_NOT_FOUND for what cannot be an id, without a look at the rows */
export function assertJobId(id: string): void {
  if (!isId(id)) throw JOB_NOT_FOUND({ id: id.slice(0, 64) })
}
