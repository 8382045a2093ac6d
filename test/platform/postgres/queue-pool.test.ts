import { expect, it } from 'vitest'
import { withLimit } from '../../../src/core/lifecycle.ts'
import { createQueuePool } from '../../../src/platform/postgres/queue-pool.ts'
import { startPostgres } from '../../support/servers.ts'

it.each(['before', 'after'])(
  'closes in time while Postgres does not answer, a connection given back %s the close has begun',
  async (when) => {
    const server = await startPostgres()
    const pool = createQueuePool({ url: server.url, max: 2, onError: () => undefined })
    const client = await pool.forBullmq.connect()
    await server.freeze(true)
    try {
      if (when === 'before') client.release()
      const closed = pool.close()
      if (when === 'after') client.release()
      await expect(withLimit(closed, 5_000)).resolves.toBeUndefined()
    } finally {
      await server.freeze(false)
    }
  },
)
