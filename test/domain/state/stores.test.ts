import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createSystemClock } from '../../../src/core/clock.ts'
import { createFileStore } from '../../../src/domain/state/stores/file.ts'
import { createPostgresStore } from '../../../src/domain/state/stores/postgres.ts'
import { createZPushSqlStore } from '../../../src/domain/state/stores/zpush-sql.ts'
import { exerciseStateStore } from '../../contracts/state-store.ts'
import { testDatabase } from '../../support/databases.ts'
import { connect, emptyDatabase } from '../../support/state.ts'

exerciseStateStore('file', async () => {
  const root = await mkdtemp(path.join(tmpdir(), 'baton-states-'))
  return {
    store: createFileStore({ root, clock: createSystemClock() }),
    release: () => rm(root, { recursive: true, force: true }),
  }
})

exerciseStateStore('zpush-sql', async () => {
  const { url, drop } = await emptyDatabase()
  const store = createZPushSqlStore({ database: connect(url), place: 'test' })
  return { store, release: () => store.close().then(drop) }
})

exerciseStateStore('postgres', async () => {
  const { url, drop } = await testDatabase()
  const store = createPostgresStore({ database: connect(url), place: 'test' })
  return { store, release: () => store.close().then(drop) }
})
