import pg from 'pg'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type TestDatabase, testDatabase } from '../databases.ts'

let database: TestDatabase
let client: pg.Client
beforeAll(async () => {
  database = await testDatabase()
  client = new pg.Client({ connectionString: database.url })
  await client.connect()
})
afterAll(() => client.end())

it('leaves nothing', async () => {
  expect((await client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }])
})
