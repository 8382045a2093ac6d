import { availableParallelism } from 'node:os'
import type { BatonError, Fault } from '../../core/errors.ts'
import { crossFaults } from './cross-faults.ts'
import { CONFIG_INVALID } from './errors.ts'
import { gatewaySettings } from './gateway-settings.ts'
import { pushSettings } from './push-settings.ts'
import { choice, flag, integer, list, type Setting, text, url } from './settings.ts'

const day = 86_400_000

/** Every setting of Baton, in the order of docs/configuration.md. */
export const settings = {
  databaseUrl: url('DATABASE_URL', ['postgres', 'postgresql'], {
    default: 'an embedded Postgres in development',
    unit: 'URL',
    about: 'The Postgres that holds every truth. Version 13 or later.',
    requiredInProduction: true,
  }),
  redisUrl: url(
    'REDIS_URL',
    ['redis', 'rediss', 'redis+sentinel', 'rediss+sentinel', 'redis+cluster', 'rediss+cluster'],
    {
      default: 'none: queues and wake-ups run on Postgres',
      unit: 'URL',
      about:
        'The Redis that carries the queues. `redis+sentinel://h1,h2/name` and `redis+cluster://h1,h2` are accepted; `rediss` is TLS.',
    },
  ),
  port: integer(
    'PORT',
    3000,
    { min: 0, max: 65_535 },
    { default: '3000', unit: 'port', about: 'Where `web` or `gateway` listens. 0 takes any free port.' },
  ),
  host: text('HOST', '0.0.0.0', {
    default: '0.0.0.0',
    unit: 'address',
    about: 'The address that `web` or `gateway` binds.',
  }),
  logLevel: choice('LOG_LEVEL', ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'], 'info', {
    default: 'info',
    unit: 'level',
    about: 'The least severe lines that are logged.',
  }),
  nodeEnv: choice('NODE_ENV', ['development', 'production', 'test'], 'development', {
    default: 'development',
    unit: 'name',
    about: 'In `production` a missing DATABASE_URL or BATON_SECRET ends the start with exit code 78.',
  }),
  workerProcesses: integer(
    'WORKER_PROCESSES',
    availableParallelism(),
    { min: 1, max: 256 },
    {
      default: 'one a core',
      unit: 'processes',
      about: 'Children of `worker` that run jobs.',
    },
  ),
  workerConcurrency: integer(
    'WORKER_CONCURRENCY',
    10,
    { min: 1, max: 1_000 },
    {
      default: '10',
      unit: 'jobs',
      about: 'Jobs that one child runs at once, for each queue.',
    },
  ),
  workerQueues: list('WORKER_QUEUES', {
    default: 'all',
    unit: 'names',
    about: 'The queues that this worker serves, with commas between.',
  }),
  shutdownMs: integer(
    'SHUTDOWN_MS',
    25_000,
    { min: 1_000, max: day },
    {
      default: '25000',
      unit: 'ms',
      about:
        'From the first stop signal to the exit, whatever happens. Keep it below what the platform grants.',
    },
  ),
  bootTimeoutMs: integer(
    'BOOT_TIMEOUT_MS',
    60_000,
    { min: 1_000, max: day },
    {
      default: '60000',
      unit: 'ms',
      about: 'How long a child of `worker` may take to become ready, and a start waits for Postgres.',
    },
  ),
  watchdogMs: integer(
    'WATCHDOG_MS',
    30_000,
    { min: 200, max: day },
    {
      default: '30000',
      unit: 'ms',
      about: 'Silence of the event loop of a child after which its stack is logged and it is ended.',
    },
  ),
  jobsModule: text('JOBS_MODULE', undefined, {
    default: 'jobs/index.ts',
    unit: 'path',
    about: 'The module that exports `jobs`, the list of all job definitions.',
  }),
  secret: text('BATON_SECRET', undefined, {
    default: 'made at random in development',
    unit: 'text',
    about: 'Signs device tokens and cookies. At least 16 characters; the same on every node.',
    requiredInProduction: true,
  }),
  apiKeys: list('BATON_API_KEYS', {
    default: 'none',
    unit: 'role:key',
    about:
      'API keys besides those in the database, `role:key` with commas between; roles producer, operator, viewer.',
  }),
  metricsOpen: flag('METRICS_OPEN', {
    default: '0',
    unit: '0 or 1',
    about:
      'Whether `GET /metrics` answers without a key. Else it takes one with the role viewer or operator.',
  }),
  jobRetentionMs: integer(
    'JOB_RETENTION_MS',
    7 * day,
    { min: 60_000, max: 3_650 * day },
    {
      default: '604800000',
      unit: 'ms',
      about: 'How long finished jobs stay in the ledger.',
    },
  ),
  failedRetentionMs: integer(
    'FAILED_RETENTION_MS',
    30 * day,
    { min: 60_000, max: 3_650 * day },
    {
      default: '2592000000',
      unit: 'ms',
      about: 'How long failed jobs stay, to be looked at and retried.',
    },
  ),
  databaseConnections: integer(
    'DATABASE_CONNECTIONS',
    10,
    { min: 2, max: 500 },
    {
      default: '10',
      unit: 'connections',
      about:
        'Most Postgres connections of one process, but for two while it moves payloads above 16 KiB, and four in web and in the master of a worker for replication, on a site that has others. `doctor` compares the sum with max_connections.',
    },
  ),
  bodyStores: list('BODY_STORES', {
    default: 'two directories under .baton/',
    unit: 'URLs',
    about:
      'Two or more stores of bodies, with commas between: `file:/a`, `webdav+http://host/path`, `s3://…`.',
  }),
  bodyRetentionMs: integer(
    'BODY_RETENTION_MS',
    30 * day,
    { min: day, max: 3_650 * day },
    {
      default: '2592000000',
      unit: 'ms',
      about:
        'How long a body is kept after its last upload when no job, schedule or push that is kept refers to it. A day at least.',
    },
  ),
  spoolFolder: text('SPOOL_FOLDER', '.baton/spool', {
    default: '.baton/spool',
    unit: 'path',
    about:
      'Where bodies of more than 1 MiB are kept until their id is known, when a store cannot. Made when missing; a file there has no name and is gone with its process.',
  }),
  site: text('SITE', 'main', {
    default: 'main',
    unit: 'name',
    about: "This site's name, shown in logs, metrics and to replicas.",
  }),
  otelEndpoint: url('OTEL_EXPORTER_OTLP_ENDPOINT', ['http', 'https'], {
    default: 'none',
    unit: 'URL',
    about: 'Where traces are sent, OTLP over HTTP.',
  }),
  ...pushSettings,
  ...gatewaySettings,
} satisfies Record<string, Setting<unknown>>

type Settings = typeof settings

export type Config = {
  readonly [Key in keyof Settings]: Settings[Key] extends Setting<infer Value> ? Value : never
} & { readonly production: boolean }

export type Environment = Record<string, string | undefined>

/**
 * Reads the configuration.
 *
 * @throws CONFIG_INVALID with every fault at once: an operator who must restart a dyno to learn of the
 * next missing variable learns slowly.
 */
export function loadConfig(environment: Environment = process.env): Config {
  const faults: Fault[] = []
  const production = environment['NODE_ENV'] === 'production'
  const values: Record<string, unknown> = { production }
  for (const [key, setting] of Object.entries<Setting<unknown>>(settings)) {
    values[key] = readSetting(setting, environment[setting.name], production, faults)
  }
  const config = values as unknown as Config
  faults.push(...crossFaults(config, new Set(faults.map(({ path }) => path))))
  if (faults.length > 0) throw configError(faults)
  return config
}

/** What a child process is given: the environment of this one, with some variables set. */
export const childEnvironment = (variables: Record<string, string>): Environment => ({
  // As scripts/baton has it, which says why; a process can only give it to others.
  UV_THREADPOOL_SIZE: '16',
  ...process.env,
  ...variables,
})

function readSetting(
  setting: Setting<unknown>,
  raw: string | undefined,
  production: boolean,
  faults: Fault[],
): unknown {
  if (raw === undefined || raw.trim() === '') {
    if (production && setting.requiredInProduction) {
      faults.push({ path: setting.name, message: 'must be set in production' })
    }
    return setting.fallback
  }
  try {
    return setting.read(raw)
  } catch (error) {
    faults.push({ path: setting.name, message: error instanceof Error ? error.message : String(error) })
    return setting.fallback
  }
}

function configError(faults: Fault[]): BatonError {
  const lines = faults.map((fault) => `  ${fault.path} ${fault.message}`).join('\n')
  return CONFIG_INVALID({ lines: `\n${lines}` }, { faults })
}
