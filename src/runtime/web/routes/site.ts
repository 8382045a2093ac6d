import type { FastifyInstance } from 'fastify'
import { Type } from 'typebox'
import { problems } from '../open-api.ts'
import type { ReplicasOptions } from './replicas.ts'

const State = Type.Object({
  role: Type.String({ description: 'alone, leader, replica' }),
  intake: Type.String({ description: 'open, draining, closed' }),
  epoch: Type.Integer(),
  lineage: Type.Union([Type.String(), Type.Null()]),
  leader: Type.Union([Type.String(), Type.Null()]),
})

/** `POST /v1/site/leave`: not below `/v1/replicas`, where a replica may have any name. */
export function addSite(server: FastifyInstance, { replicas, audit }: ReplicasOptions): void {
  server.post(
    '/v1/site/leave',
    {
      config: { roles: [], bodyOptional: true },
      schema: {
        tags: ['sync'],
        summary: 'Makes a leader without replicas alone again',
        description:
          'Its change log is emptied. The next replica begins another lineage, and has to be empty.',
        security: [{ key: [] }],
        response: {
          200: State,
          ...problems({
            409: 'It has a replica, is one, is in a fail-over, or takes no writes',
            503: 'Others write without a pause; nothing was changed',
          }),
        },
      },
    },
    async (request, reply) => {
      const state = await replicas.leave()
      await audit.record({
        actor: request.principal?.name ?? 'unknown',
        action: 'site.leave',
        subject: 'site',
        details: { requestId: request.id, key: request.principal?.owner },
      })
      return reply.send(state)
    },
  )
}
