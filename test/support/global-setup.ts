import { randomBytes } from 'node:crypto'
import pg from 'pg'
import type { TestProject } from 'vitest/node'
import { migrate } from '../../src/platform/postgres/migrate.ts'
import { migrateQueues } from '../../src/platform/queues/migrate.ts'
import { databaseUrl } from './databases.ts'
import { startPostgres, startRedis } from './servers.ts'

/**
 * One Postgres and one Redis for the whole run: those of DATABASE_URL and REDIS_URL, else our own.
 * A server that cannot be had fails the run and says what to install. Nothing is skipped for want of it.
 */
export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const { DATABASE_URL, REDIS_URL } = process.env
  const releases: (() => Promise<void>)[] = []
  const release = async (): Promise<void> => {
    for (const each of releases.reverse()) await each()
  }
  try {
    const redis = REDIS_URL ? undefined : await startRedis()
    if (redis) releases.push(() => redis.stop())
    // Without autovacuum: what it does, and when, would be in the plans and the counts of a test now and then.
    const postgres = DATABASE_URL ? undefined : await startPostgres({ autovacuum: 'off' })
    if (postgres) releases.push(() => postgres.stop())

    const cluster = DATABASE_URL ?? postgres?.url ?? ''
    const template = `baton_template_${randomBytes(4).toString('hex')}`
    await execute(cluster, `CREATE DATABASE ${template}`)
    releases.push(() => execute(cluster, `DROP DATABASE ${template} WITH (FORCE)`))
    await migrate(databaseUrl(cluster, template))
    await migrateQueues(databaseUrl(cluster, template))

    project.provide('postgresUrl', cluster)
    project.provide('postgresTemplate', template)
    project.provide('redisUrl', REDIS_URL ?? redis?.url ?? '')
    return release
  } catch (error) {
    await release()
    throw error
  }
}

async function execute(url: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: url, application_name: 'baton test support' })
  await client.connect()
  try {
    await client.query(sql)
  } finally {
    await client.end()
  }
}
