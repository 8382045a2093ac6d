import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import type { Config } from '../../platform/config/config.ts'
import { pendingMigrations } from '../../platform/postgres/migrate.ts'
import { createPostgres, type Postgres } from '../../platform/postgres/postgres.ts'
import { assertQueuesMigrated } from '../../platform/queues/migrate.ts'
import { syncConnections } from '../compose/sync-connections.ts'
import { clockSkew, type Finding, fault, ok, warning } from './check.ts'
import { checkSite } from './site-checks.ts'

const oldestMajor = 13

/** Looks at the database: reachable, new enough, migrated, with connections to spare, on time, with keys and nodes. */
export async function checkPostgres(config: Config, url: string, clock: Clock): Promise<Finding[]> {
  const postgres = createPostgres({
    url,
    max: 2,
    applicationName: 'baton doctor',
    maxWaitMs: 5_000,
    statementTimeoutMs: 10_000,
    onError: () => undefined,
  })
  try {
    const version = await checkVersion(postgres)
    if (version.state === 'fault') return [version]
    const findings = [version, await checkClock(postgres, clock), await checkBudget(postgres, config)]
    const migrated = await checkMigrations(postgres, url)
    findings.push(migrated)
    if (migrated.state === 'ok') {
      findings.push(await checkKeys(postgres, config), await checkNodes(postgres), await checkSite(postgres))
    }
    return findings
  } finally {
    await postgres.close()
  }
}

async function checkVersion(postgres: Postgres): Promise<Finding> {
  try {
    const { rows } = await postgres.query<{ number: number; text: string }>(
      `SELECT current_setting('server_version_num')::int AS number, current_setting('server_version') AS text`,
    )
    const major = Math.floor((rows[0]?.number ?? 0) / 10_000)
    if (major >= oldestMajor) return ok('Postgres', `version ${rows[0]?.text}`)
    return fault('Postgres', `version ${rows[0]?.text}`, `Use Postgres ${oldestMajor} or later.`)
  } catch (error) {
    return fault('Postgres', messageOf(error), 'See that it runs, and that DATABASE_URL names it.')
  }
}

async function checkClock(postgres: Postgres, clock: Clock): Promise<Finding> {
  const asked = clock.now()
  const { rows } = await postgres.query<{ ms: string }>(
    `SELECT extract(epoch FROM clock_timestamp()) * 1000 AS ms`,
  )
  return clockSkew("Postgres' clock", Number(rows[0]?.ms), asked, clock.now())
}

/** Compares what this configuration may open on one machine with what the server has left. */
async function checkBudget(postgres: Postgres, config: Config): Promise<Finding> {
  const { rows } = await postgres.query<{ most: number; used: number; ours: number }>(
    `SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int AS most,
            (SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend') AS used,
            (SELECT count(*)::int FROM pg_stat_activity WHERE application_name LIKE 'baton%') AS ours`,
  )
  const { most = 0, used = 0, ours = 0 } = rows[0] ?? {}
  // One web process, one master, and the children; each with its pool.
  const processes = config.workerProcesses + 2
  const replicating = (await hasOtherSites(postgres)) ? 2 * syncConnections : 0
  const wanted = processes * config.databaseConnections + replicating
  const more = replicating > 0 ? `, ${replicating} of them for replication` : ''
  const found = `${used} of ${most} in use (${ours} by Baton); one web and one worker may open ${wanted}${more}`
  if (used - ours + wanted <= most) return ok('Connection budget', found)
  return warning(
    'Connection budget',
    found,
    'Lower DATABASE_CONNECTIONS or WORKER_PROCESSES, raise max_connections, or put a pooler in session mode between.',
  )
}

/** Web and the worker's master have a pool for replication then. Before the first `baton release` there is no site. */
async function hasOtherSites(postgres: Postgres): Promise<boolean> {
  const { rows } = await postgres.query<{ there: boolean }>(`SELECT to_regclass('site') IS NOT NULL AS there`)
  if (!rows[0]?.there) return false
  const { rowCount } = await postgres.query(`SELECT FROM site WHERE role <> 'alone'`)
  return rowCount !== 0
}

async function checkMigrations(postgres: Postgres, url: string): Promise<Finding> {
  const pending = (await pendingMigrations(postgres)).map((migration) => migration.name)
  if (pending.length > 0) return fault('Migrations', `pending: ${pending.join(', ')}`, 'Run `baton release`.')
  try {
    await assertQueuesMigrated(url)
    return ok('Migrations', 'none pending')
  } catch (error) {
    return fault('Migrations', messageOf(error), 'Run `baton release`.')
  }
}

async function checkKeys(postgres: Postgres, config: Config): Promise<Finding> {
  const { rows } = await postgres.query<{ count: number }>(
    'SELECT count(*)::int AS count FROM api_keys WHERE revoked_at IS NULL',
  )
  const count = (rows[0]?.count ?? 0) + config.apiKeys.length
  return count > 0
    ? ok('API keys', `${count} valid`)
    : warning('API keys', 'none', 'Make one: `baton keys create --role operator --name me`.')
}

async function checkNodes(postgres: Postgres): Promise<Finding> {
  const { rows } = await postgres.query<{ kind: string; live: number; silent: number }>(
    `SELECT kind, count(*) FILTER (WHERE heartbeat_at > now() - interval '4 s')::int AS live,
            count(*) FILTER (WHERE heartbeat_at <= now() - interval '4 s')::int AS silent
     FROM nodes GROUP BY kind ORDER BY kind`,
  )
  const found = rows.map((row) => `${row.live} ${row.kind}${row.silent > 0 ? ` (${row.silent} silent)` : ''}`)
  return ok('Processes', found.length > 0 ? found.join(', ') : 'none runs')
}
