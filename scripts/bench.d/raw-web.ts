// The peer of durable acceptance: what a team writes without Baton, one queue.add a request behind the same
// web framework, without any durability beyond Redis. Prints its port.
import { Queue } from 'bullmq'
import { fastify } from 'fastify'
import { Redis } from 'ioredis'

const queue = new Queue('raw', {
  connection: new Redis(process.env['REDIS_URL'] ?? '', { maxRetriesPerRequest: null }),
})
const server = fastify({ logger: false })
server.post(
  '/v1/jobs',
  {
    schema: {
      body: {
        type: 'object',
        required: ['name', 'payload'],
        properties: { name: { type: 'string' }, payload: { type: 'object' } },
      },
    },
  },
  async (request, reply) => {
    const { name, payload } = request.body as { name: string; payload: unknown }
    const job = await queue.add(name, payload)
    return reply.code(202).send({ id: job.id, name, state: 'waiting' })
  },
)
await server.listen({ port: 0, host: '127.0.0.1' })
const address = server.server.address()
console.log(`listening on ${typeof address === 'object' ? address?.port : ''}`)
