import pg from 'pg'
import { afterAll, expect, it } from 'vitest'
import { testDatabase } from '../databases.ts'

const connect = async (name: string): Promise<pg.Client> => {
  const { url } = await testDatabase()
  const client = new pg.Client({ connectionString: url, application_name: name })
  client.on('error', () => undefined)
  await client.connect()
  return client
}

let inTime: pg.Client | undefined
afterAll(() => inTime?.end())

it('leaves a connection open', async () => {
  expect((await (await connect('planted leak')).query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }])
})

it('closes another one in its last hook', async () => {
  inTime = await connect('closed in time')
  expect((await inTime.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }])
})
