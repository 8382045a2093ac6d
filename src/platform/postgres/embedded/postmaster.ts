import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { open, readFile, stat, truncate } from 'node:fs/promises'
import { withLimit } from '../../../core/lifecycle.ts'
import { type Account, cleanEnvironment } from './account.ts'
import { EMBEDDED_POSTGRES_FAILED } from './errors.ts'
import type { Places } from './places.ts'
import { startWatchdog } from './watchdog.ts'

export interface Exit {
  code: number | null
  signal: NodeJS.Signals | null
}

/** A running postmaster. */
export interface Postmaster {
  readonly pid: number
  readonly exited: Promise<Exit>
  signal(signal: NodeJS.Signals): void
  /** Ends it as fast as is safe, and at last by force. */
  stop(): Promise<void>
}

const development = {
  listen_addresses: '127.0.0.1',
  max_connections: '200',
  shared_buffers: '64MB',
  max_wal_size: '256MB',
  jit: 'off',
  timezone: 'UTC',
  log_timezone: 'UTC',
}

/** The log is for the last runs, not for ever. Bytes. */
const largestLog = 10 * 1024 * 1024

/**
 * Starts a postmaster in a session of its own: a Ctrl-C in the terminal reaches every process of the
 * foreground group, and the database must outlive the workers that drain into it.
 * Its log goes to a file and not through a pipe to us, which would break with us.
 */
export async function spawnPostmaster(
  places: Places,
  account: Account,
  settings: Record<string, string>,
): Promise<Postmaster> {
  const { size } = await stat(places.logFile).catch(() => ({ size: 0 }))
  if (size > largestLog) await truncate(places.logFile)
  const log = await open(places.logFile, 'a', 0o600)
  const all = { ...development, unix_socket_directories: places.sockets, ...settings }
  const flags = Object.entries(all).flatMap(([name, value]) => ['-c', `${name}=${value}`])
  try {
    const child = spawn(places.postgres, ['-D', places.data, ...flags], {
      ...account,
      cwd: '/',
      env: cleanEnvironment,
      detached: true,
      stdio: ['ignore', log.fd, log.fd],
    })
    await once(child, 'spawn')
    return watch(child, account)
  } catch (error) {
    throw EMBEDDED_POSTGRES_FAILED({ reason: `${places.postgres} cannot be started` }, { cause: error })
  } finally {
    await log.close()
  }
}

function watch(child: ChildProcess, account: Account): Postmaster {
  const pid = child.pid ?? 0
  const callOff = startWatchdog(pid, 'INT', { ...account, env: cleanEnvironment })
  const exited = new Promise<Exit>((resolve) => {
    child.once('exit', (code, signal) => {
      callOff()
      resolve({ code, signal })
    })
  })
  return {
    pid,
    exited,
    signal: (signal) => void child.kill(signal),
    stop: async () => {
      // Fast (roll back what runs), immediate (as after a crash), and at last by force.
      for (const signal of ['SIGINT', 'SIGQUIT', 'SIGKILL'] as const) {
        child.kill(signal)
        const gone = await withLimit(exited, 10_000).catch(() => undefined)
        if (gone) return
      }
    },
  }
}

/** What Postgres said last, for the text of an error. */
export async function lastWords(logFile: string, offset: number): Promise<string> {
  const bytes = await readFile(logFile).catch(() => Buffer.alloc(0))
  return bytes
    .subarray(Math.min(offset, bytes.length))
    .toString('utf8')
    .trim()
    .split('\n')
    .slice(-12)
    .join('\n')
}

/** Length of the log so far, bytes: what comes after belongs to the next start. */
export const logLength = (logFile: string): Promise<number> =>
  stat(logFile).then(
    (found) => (found.size > largestLog ? 0 : found.size),
    () => 0,
  )
