import { randomBytes } from 'node:crypto'
import { Agent, request } from 'node:http'
import { release } from '../../src/cli/release.ts'
import { createPostgres, type Postgres } from '../../src/platform/postgres/postgres.ts'
import { atEndOfTest, type BatonProcess, eventually, freePort, spawnBaton } from './processes.ts'
import { type PushService, startPushService } from './push-service.ts'
import { type PrivateServer, startPostgres, startRedis } from './servers.ts'

export const producerKey = 'producer-key-0123456789'
export const operatorKey = 'operator-key-0123456789'

/** Web and worker processes on stores of their own, and a stand-in for who receives cloud pushes. */
export interface PushSite {
  postgresServer: PrivateServer
  redis: PrivateServer | undefined
  postgres: Postgres
  /** Takes webhooks. */
  cloud: PushService
  startWeb(env?: Record<string, string>): Promise<WebNode>
  startWorker(env?: Record<string, string>): Promise<BatonProcess>
  /** Runs one command to its end. */
  command(args: string[]): Promise<{ code: number | null; stdout: string[] }>
  query<R extends Record<string, unknown>>(sql: string, values?: unknown[]): Promise<R[]>
  /** Devices of this name and number, each with a webhook at the cloud, its path the device's name. */
  devices(count: number, prefix?: string): Promise<string[]>
}

export interface WebNode extends Client {
  process: BatonProcess
}

export interface Reply {
  status: number
  headers: Record<string, string | string[] | undefined>
  text: string
  json<T = Record<string, never>>(): T
}

export interface Client {
  address: string
  call(method: string, path: string, options?: CallOptions): Promise<Reply>
}

export interface CallOptions {
  body?: unknown
  key?: string
  headers?: Record<string, string>
  signal?: AbortSignal
}

export async function openPushSite(
  engine: 'redis' | 'postgres',
  settings: Record<string, string> = {},
): Promise<PushSite> {
  const [postgresServer, redis, cloud] = await Promise.all([
    startPostgres({ fsync: 'on' }),
    engine === 'redis' ? startRedis() : undefined,
    startPushService('http'),
  ])
  await release(postgresServer.url)
  const postgres = createPostgres({
    url: postgresServer.url,
    max: 4,
    applicationName: 'push site',
    onError: () => undefined,
  })
  atEndOfTest(async () => {
    await postgres.close()
    await cloud.close()
  })
  const environment = {
    DATABASE_URL: postgresServer.url,
    ...(redis ? { REDIS_URL: redis.url } : {}),
    HOST: '127.0.0.1',
    BATON_SECRET: randomBytes(16).toString('hex'),
    BATON_API_KEYS: `producer:${producerKey},operator:${operatorKey}`,
    PUSH_ALLOW_PRIVATE: '1',
    WORKER_PROCESSES: '1',
    LOG_LEVEL: 'warn',
    ...settings,
  }
  return {
    postgresServer,
    redis,
    postgres,
    cloud,
    startWeb: async (env = {}) => {
      const port = await freePort()
      const process = spawnBaton(['web'], { ...environment, PORT: String(port), ...env })
      const client = createClient(`http://127.0.0.1:${port}`)
      const ready = async (): Promise<void> => {
        const { status } = await client.call('GET', '/readyz')
        if (status !== 200) throw new Error(`not ready: ${process.lines.slice(-5).join('\n')}`)
      }
      await eventually(ready, { timeoutMs: 40_000, everyMs: 50 })
      return { ...client, process }
    },
    startWorker: async (env = {}) => {
      const { pid, ...process } = spawnBaton(['worker'], { ...environment, LOG_LEVEL: 'info', ...env })
      await process.waitForLine(/ready|takes jobs|serves|is up/i, 40_000)
      return { pid, ...process }
    },
    command: async (args) => {
      const process = spawnBaton(args, environment)
      const { code } = await process.exit
      return { code, stdout: [...process.stdout] }
    },
    query: async (sql, values) => (await postgres.query<never>(sql, values)).rows,
    devices: async (count, prefix = 'device') => {
      const names = Array.from({ length: count }, (_none, index) => `${prefix}-${index}`)
      await registerDevices(postgres, names, cloud.origin)
      return names
    },
  }
}

/** Straight into the tables: a scenario is not about a thousand registrations. */
async function registerDevices(postgres: Postgres, names: string[], origin: string): Promise<void> {
  const { shardOf } = await import('../../src/domain/push/shard.ts')
  await postgres.query('INSERT INTO devices (id, shard) SELECT * FROM unnest($1::text[], $2::smallint[])', [
    names,
    names.map(shardOf),
  ])
  await postgres.query(
    `INSERT INTO transports (device, position, kind, address, options)
     SELECT name, 0, 'webhook', $2 || '/' || name, '{}' FROM unnest($1::text[]) AS name`,
    [names, origin],
  )
}

export function createClient(address: string): Client {
  const agent = new Agent({ keepAlive: true, maxSockets: 2_000 })
  atEndOfTest(() => agent.destroy())
  return {
    address,
    call: (method, path, { body, key = producerKey, headers = {}, signal } = {}) =>
      new Promise((resolve, reject) => {
        const text = body === undefined ? undefined : JSON.stringify(body)
        const call = request(
          new URL(path, address),
          {
            method,
            agent,
            headers: {
              ...(key === '' ? {} : { authorization: `Bearer ${key}` }),
              ...(text === undefined ? {} : { 'content-type': 'application/json' }),
              ...headers,
            },
            ...(signal ? { signal } : {}),
          },
          (response) => {
            const chunks: Buffer[] = []
            response.on('data', (chunk: Buffer) => chunks.push(chunk))
            response.on('error', reject)
            response.on('end', () => {
              const whole = Buffer.concat(chunks).toString()
              resolve({
                status: response.statusCode ?? 0,
                headers: response.headers,
                text: whole,
                json: <T>() => JSON.parse(whole) as T,
              })
            })
          },
        )
        call.on('error', reject)
        call.end(text)
      }),
  }
}

export interface Heard {
  cursor: string
  notifications: { id: string; device: string; topic?: string; payload?: unknown; acceptedAt: string }[]
}

/** The p-th percentile, 0 … 100. */
export function percentile(values: number[], p: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor((p / 100) * sorted.length))] ?? Number.NaN
}
