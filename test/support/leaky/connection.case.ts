import pg from 'pg'
import { afterAll, it } from 'vitest'
import { testDatabase } from '../databases.ts'

it('leaves a connection open', async () => {
  const { url } = await testDatabase()
  const client = new pg.Client({ connectionString: url, application_name: 'planted leak' })
  client.on('error', () => undefined)
  await client.connect()
})

it('closes another one in its last hook', async () => {
  const { url } = await testDatabase()
  const client = new pg.Client({ connectionString: url, application_name: 'closed in time' })
  await client.connect()
  afterAll(() => client.end())
})
