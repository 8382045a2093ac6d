import pg from 'pg'
import { createSystemClock } from '../../../src/core/clock.ts'
import { createPostgres, type Postgres } from '../../../src/platform/postgres/postgres.ts'
import { createPostgresWakeBus } from '../../../src/platform/wake-buses/postgres.ts'
import { exerciseWakeBus } from '../../contracts/wake-bus.ts'
import { testDatabase } from '../../support/databases.ts'

const clock = createSystemClock()

exerciseWakeBus('Postgres', async () => {
  const { url } = await testDatabase()
  const open = () => {
    const postgres: Postgres = createPostgres({
      url,
      max: 2,
      applicationName: 'test',
      onError: () => undefined,
    })
    const bus = createPostgresWakeBus({ postgres, clock, onError: () => undefined })
    let closing: Promise<void> | undefined
    const close = async (): Promise<void> => {
      await bus.close()
      await postgres.close()
    }
    return { ...bus, close: () => (closing ??= close()) }
  }
  return { open, interrupt: () => endSessions(url) }
})

/** Every other session of the database, as an administrator or a fail-over ends them. */
async function endSessions(url: string): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await client.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()`)
  await client.end()
}
