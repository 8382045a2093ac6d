import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import path from 'node:path'
import { promisify } from 'node:util'
import { codeOf } from '../../src/core/errors.ts'
import { startWatchdog } from '../../src/platform/postgres/embedded/watchdog.ts'
import { createEmbeddedPostgres } from '../../src/platform/postgres/embedded.ts'
import { atEndOfTest, eventually, freePort, processTable } from './processes.ts'

// Servers of one's own, for tests that take them away. Ordinary tests share one of each: see databases.ts.
// Within a test they are stopped at its end; outside of one whoever starts them calls `stop`.

/** A server that can be taken away and given back, always on the same port. */
export interface PrivateServer {
  readonly url: string
  readonly port: number
  /** Ends it as a crash would, and waits until it is gone. Default SIGKILL. */
  kill(signal?: NodeJS.Signals): Promise<void>
  /** Makes it hang (true) and go on (false), its connections open: a machine that does not answer. */
  freeze(frozen: boolean): Promise<void>
  /** Starts it again after `kill`, or stops and starts it. Serves when it resolves. */
  restart(): Promise<void>
  /** For good, with its data. */
  stop(): Promise<void>
  /** Where it keeps its data; undefined in a container. */
  readonly folder?: string
}

export interface RedisOptions {
  /** Keeps what was acknowledged over a restart. Default false: a restarted Redis is empty. */
  appendOnly?: boolean
  /** Further arguments of redis-server. */
  args?: string[]
}

const run = promisify(execFile)

/** A private Redis: a local `redis-server`, else a container. */
export async function startRedis(options: RedisOptions = {}): Promise<PrivateServer> {
  const server = (await isInstalled('redis-server'))
    ? await startLocalRedis(options)
    : await startRedisContainer(options)
  atEndOfTest(() => server.stop())
  return server
}

/** A private, empty Postgres; call `migrate(url)` where tables are wanted. */
export async function startPostgres(settings: Record<string, string> = {}): Promise<PrivateServer> {
  const folder = await temporaryFolder('baton-test-postgres-')
  const postgres = createEmbeddedPostgres({
    dataDir: folder,
    // It keeps the port while it is killed and started again.
    port: await freePort(),
    // What a killed postmaster has written is in the page cache, so only a power cut would need fsync.
    settings: { fsync: 'off', max_connections: '300', ...settings },
  })
  const { url } = await postgres.start()
  let stopping: Promise<void> | undefined
  const server: PrivateServer = {
    url,
    port: Number(new URL(url).port),
    folder,
    kill: (signal = 'SIGKILL') => postgres.kill(signal),
    freeze: (frozen) => signalSession(folder, frozen ? 'SIGSTOP' : 'SIGCONT'),
    restart: () => postgres.restart(),
    stop: () => (stopping ??= postgres.stop().then(() => rm(folder, { recursive: true, force: true }))),
  }
  atEndOfTest(() => server.stop())
  return server
}

async function startLocalRedis(options: RedisOptions): Promise<PrivateServer> {
  const folder = await temporaryFolder('baton-test-redis-')
  const keep = options.appendOnly ? ['yes', '--appendfsync', 'always'] : ['no']
  const flags = [
    '--bind',
    '127.0.0.1',
    '--dir',
    folder,
    '--save',
    '',
    '--appendonly',
    ...keep,
    ...(options.args ?? []),
  ]
  let current = await launchOnFreePort(flags)
  const { port } = current
  let stopping: Promise<void> | undefined
  const kill = async (signal: NodeJS.Signals = 'SIGKILL'): Promise<void> => {
    current.child.kill(signal)
    await current.exited
  }
  return {
    url: `redis://127.0.0.1:${port}`,
    port,
    folder,
    kill,
    freeze: async (frozen) => void current.child.kill(frozen ? 'SIGSTOP' : 'SIGCONT'),
    restart: async () => {
      await kill('SIGKILL')
      current = await launchRedis(port, flags)
    },
    stop: () => (stopping ??= kill().then(() => rm(folder, { recursive: true, force: true }))),
  }
}

async function launchOnFreePort(flags: string[]) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await launchRedis(await freePort(), flags)
    } catch (error) {
      // A free port may be taken before Redis has it.
      if (attempt === 5 || !String(error).includes('in use')) throw error
    }
  }
}

async function launchRedis(port: number, flags: string[]) {
  const child = spawn('redis-server', ['--port', String(port), ...flags], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  await once(child, 'spawn')
  let output = ''
  child.stdout.on('data', (chunk) => (output += String(chunk)))
  child.stderr.on('data', (chunk) => (output += String(chunk)))
  const callOff = startWatchdog(child.pid ?? 0, 'KILL')
  let over = false
  const exited = once(child, 'close').then(() => {
    over = true
    callOff()
  })
  const ready = eventually(async () => over || (await ping(port)), { timeoutMs: 15_000 })
  await ready.catch(async (error: unknown) => {
    child.kill('SIGKILL')
    await exited
    throw error
  })
  if (over) throw new Error(`redis-server does not start: ${output}`)
  return { child, exited, port }
}

/** Asked by hand: a client library would reconnect, and that is what the tests are about. */
async function ping(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1')
  try {
    await once(socket, 'connect')
    socket.write('PING\r\n')
    const [answer] = (await once(socket, 'data')) as [Buffer]
    if (!answer.toString().startsWith('+PONG')) throw new Error(`Redis says ${answer.toString()}`)
    return true
  } finally {
    socket.destroy()
  }
}

async function startRedisContainer(options: RedisOptions): Promise<PrivateServer> {
  // Loaded only here, since it takes longer than a start of Redis.
  const { GenericContainer, getContainerRuntimeClient } = await import('testcontainers')
  const port = await freePort()
  const command = [
    'redis-server',
    '--save',
    '',
    '--appendonly',
    options.appendOnly ? 'yes' : 'no',
    ...(options.args ?? []),
  ]
  const container = await new GenericContainer('redis:7.4-alpine')
    .withCommand(command)
    .withExposedPorts({ container: 6379, host: port })
    .start()
    .catch((error: unknown) => {
      const remedy =
        'Install redis-server (Debian: apt-get install redis-server; macOS: brew install redis), start Docker, or set REDIS_URL.'
      throw new Error(`The tests need a Redis server. ${remedy}`, { cause: error })
    })
  const runtime = await getContainerRuntimeClient()
  const handle = runtime.container.getById(container.getId())
  let stopping: Promise<unknown> | undefined
  const kill = async (signal: NodeJS.Signals = 'SIGKILL'): Promise<void> => {
    await handle.kill({ signal }).catch(() => undefined)
    await handle.wait({ condition: 'not-running' })
  }
  return {
    url: `redis://${container.getHost()}:${port}`,
    port,
    kill,
    freeze: async (frozen) => void (await (frozen ? handle.pause() : handle.unpause())),
    restart: async () => {
      await kill()
      await handle.start()
      await eventually(() => ping(port), { timeoutMs: 15_000 })
    },
    stop: async () => void (await (stopping ??= container.stop())),
  }
}

async function isInstalled(program: string): Promise<boolean> {
  return run('/bin/sh', ['-c', 'command -v "$1"', 'sh', program]).then(
    () => true,
    () => false,
  )
}

/** Postgres runs as another user when the tests run as root, so that one must be able to enter. */
async function temporaryFolder(prefix: string): Promise<string> {
  const folder = await mkdtemp(path.join('/tmp', prefix))
  await chmod(folder, 0o755)
  return folder
}

/** To the postmaster and all its processes: each of them is a session of its own. */
async function signalSession(folder: string, signal: NodeJS.Signals): Promise<void> {
  const postmaster = Number.parseInt(await readFile(path.join(folder, 'data/postmaster.pid'), 'utf8'), 10)
  const all = await processTable()
  for (const { pid, ppid } of all) {
    if (pid !== postmaster && ppid !== postmaster) continue
    try {
      process.kill(pid, signal)
    } catch (error) {
      // A session that ended since; the others are meant all the same.
      if (codeOf(error) !== 'ESRCH') throw error
    }
  }
}
