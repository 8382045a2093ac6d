import { createSystemClock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import { createReleasers } from '../../core/lifecycle.ts'
import type { Bodies } from '../../domain/bodies/bodies.ts'
import type { Config } from '../../platform/config/config.ts'
import { createLog } from '../../platform/log.ts'
import { createPostgres, type Postgres } from '../../platform/postgres/postgres.ts'
import { assertDatabaseReady, openDatabase } from './database.ts'
import { createSiteBodies } from './site-bodies.ts'

export interface BodiesTools {
  bodies: Bodies
  postgres: Postgres
}

/** Opens the database and the stores of bodies for one command, and closes them when it is done. */
export async function withBodies<T>(config: Config, work: (tools: BodiesTools) => Promise<T>): Promise<T> {
  const clock = createSystemClock()
  const log = createLog({ level: 'fatal', process: 'command' })
  const releasers = createReleasers((message) => log.warn(message))
  try {
    const database = await openDatabase(config, log)
    releasers.add('database', () => database.close())
    const postgres = createPostgres({
      url: database.url,
      max: 4,
      applicationName: 'baton command',
      onError: (error) => log.warn({ reason: messageOf(error) }, 'a connection has trouble'),
    })
    releasers.add('postgres', () => postgres.close())
    await assertDatabaseReady(config, { postgres, clock, log }, 5_000)
    const bodies = createSiteBodies({ config, postgres, clock, log })
    releasers.add('bodies', () => bodies.close())
    return await work({ bodies, postgres })
  } finally {
    await releasers.release()
  }
}
