// Holds whatever it is delivered and never lets go: argv are the engine, its URL, the queue, and the key prefix.
import { createSystemClock } from '../../../../src/core/clock.ts'
import { createPostgresBackend } from '../../../../src/platform/queues/backends/postgres.ts'
import { createRedisBackend } from '../../../../src/platform/queues/backends/redis.ts'

const [, , engine, url = '', queue = '', prefix = 'baton'] = process.argv
const options = { url, clock: createSystemClock(), onError: console.error }
const backend =
  engine === 'redis' ? createRedisBackend({ ...options, prefix }) : createPostgresBackend(options)
const consumer = backend.consume({
  queue,
  runner: 'doomed',
  concurrency: 1,
  process: ({ id }) => {
    console.log(`holds ${id}`)
    return new Promise(() => undefined)
  },
  onLost: () => undefined,
  onError: console.error,
})
await consumer.start()
