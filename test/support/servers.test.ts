import { Redis } from 'ioredis'
import pg from 'pg'
import { describe, expect, it, onTestFinished } from 'vitest'
import { withLimit } from '../../src/core/lifecycle.ts'
import { testDatabase, testRedis } from './databases.ts'
import { eventually, isRunning, spawnNode } from './processes.ts'
import { startPostgres, startRedis } from './servers.ts'

const query = async (url: string, sql: string): Promise<unknown[]> => {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => undefined)
  await client.connect()
  try {
    return (await client.query(sql)).rows
  } finally {
    await client.end()
  }
}

const redisClient = (url: string): Redis => {
  const client = new Redis(url, { maxRetriesPerRequest: null, retryStrategy: () => 50 })
  client.on('error', () => undefined)
  onTestFinished(() => client.disconnect())
  return client
}

describe('the shared servers', () => {
  it('give databases that are migrated and know nothing of each other', async () => {
    const [one, other] = await Promise.all([testDatabase(), testDatabase()])
    await query(one.url, 'CREATE TABLE mine (n int)')
    await expect(query(other.url, 'SELECT * FROM mine')).rejects.toThrow(/does not exist/)
    expect(await query(other.url, 'SELECT count(*) > 0 AS migrated FROM migrations')).toEqual([
      { migrated: true },
    ])
    await one.drop()
    await expect(query(one.url, 'SELECT 1')).rejects.toThrow(/does not exist/)
  })

  it('give a Redis with a prefix of its own', async () => {
    const [one, other] = await Promise.all([testRedis(), testRedis()])
    expect(one.prefix).not.toBe(other.prefix)
    expect(await redisClient(one.url).ping()).toBe('PONG')
  })
})

describe('a private Redis', () => {
  it('can be killed and comes back empty on the same port', async () => {
    const server = await startRedis()
    const client = redisClient(server.url)
    await client.set('key', 'value')
    await server.kill()
    await server.restart()
    expect(await client.get('key')).toBeNull()
  })

  it('keeps what it acknowledged when it is asked to', async () => {
    const server = await startRedis({ appendOnly: true })
    const client = redisClient(server.url)
    await client.set('key', 'value')
    await server.kill()
    await server.restart()
    expect(await client.get('key')).toBe('value')
  })

  it('can hang with its connections open', async () => {
    const server = await startRedis()
    const client = redisClient(server.url)
    await client.ping()
    await server.freeze(true)
    const answer = client.ping()
    await expect(withLimit(answer, 200)).rejects.toThrow(/no answer/)
    await server.freeze(false)
    expect(await answer).toBe('PONG')
  })
})

describe('a private Postgres', () => {
  it('can be killed and comes back with its data on the same port', async () => {
    const server = await startPostgres()
    await query(server.url, 'CREATE TABLE kept AS SELECT 1 AS n')
    await server.kill()
    await expect(query(server.url, 'SELECT 1')).rejects.toThrow(/ECONNREFUSED/)
    await server.restart()
    expect(await query(server.url, 'SELECT n FROM kept')).toEqual([{ n: 1 }])
  })

  it('can hang with its connections open', async () => {
    const server = await startPostgres()
    const client = new pg.Client({ connectionString: server.url })
    await client.connect()
    await server.freeze(true)
    const answer = client.query('SELECT 1 AS one')
    await expect(withLimit(answer, 200)).rejects.toThrow(/no answer/)
    await server.freeze(false)
    expect((await answer).rows).toEqual([{ one: 1 }])
    await client.end()
  })
})

describe('a process of the project', () => {
  const script = (code: string): string[] => ['--input-type=module-typescript', '--eval', code]

  it('tells its lines, past and to come, and how it ended', async () => {
    const child = spawnNode(
      script(`console.log('one', process.env['GIVEN']); console.error('two'); process.exitCode = 3`),
      {
        GIVEN: 'yes',
      },
    )
    expect(await child.waitForLine(/^one/)).toBe('one yes')
    expect(await child.waitForLine((line) => line === 'two')).toBe('two')
    expect(await child.exit).toEqual({ code: 3, signal: null })
    expect(child.stdout).toEqual(['one yes'])
    await expect(child.waitForLine(/three/)).rejects.toThrow(/ended with 3 before [\s\S]*one yes/)
  })

  it('is killed with its children', async () => {
    const child = spawnNode(
      script(`import { spawn } from 'node:child_process'
        const { pid } = spawn('sleep', ['78'], { stdio: 'ignore' })
        console.log('child', pid)`),
    )
    const pid = Number((await child.waitForLine(/^child/)).split(' ')[1])
    expect(await isRunning(pid)).toBe(true)
    expect(await child.kill()).toEqual({ code: null, signal: 'SIGKILL' })
    await eventually(async () => expect(await isRunning(pid)).toBe(false))
  })
})
