import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { release } from '../../src/cli/release.ts'
import { freePort } from '../../src/platform/free-port.ts'
import { createEmbeddedPostgres } from '../../src/platform/postgres/embedded.ts'

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url))

/** Servers of a bench, with the durability that production has: Postgres with fsync, Redis without persistence. */
export interface Servers {
  databaseUrl: string
  redisUrl: string
  /** A scratch folder. */
  folder: string
  stop(): Promise<void>
}

/** `settings`: of Postgres, beside those of every bench. */
export async function startServers(settings: Record<string, string> = {}): Promise<Servers> {
  const folder = mkdtempSync(path.join(tmpdir(), 'baton-bench-'))
  const undo: (() => Promise<unknown> | void)[] = [() => rmSync(folder, { recursive: true, force: true })]
  const databaseUrl = process.env['DATABASE_URL'] ?? (await startPostgres(folder, undo, settings))
  await release(databaseUrl)
  const redisUrl = process.env['REDIS_URL'] ?? (await startRedis(folder, undo))
  return {
    databaseUrl,
    redisUrl,
    folder,
    stop: async () => {
      for (const step of undo.reverse()) await step()
    },
  }
}

async function startPostgres(
  folder: string,
  undo: (() => Promise<unknown>)[] | unknown[],
  settings: Record<string, string>,
): Promise<string> {
  const server = createEmbeddedPostgres({
    dataDir: path.join(folder, 'postgres'),
    settings: { shared_buffers: '256MB', max_wal_size: '2GB', ...settings },
  })
  const { url } = await server.start()
  ;(undo as (() => Promise<unknown>)[]).push(() => server.discard())
  return url
}

async function startRedis(folder: string, undo: unknown[]): Promise<string> {
  const port = await freePort()
  const server = spawn('redis-server', ['--port', String(port), '--save', '', '--dir', folder], {
    stdio: 'ignore',
  })
  ;(undo as (() => Promise<unknown>)[]).push(() => end(server))
  return `redis://127.0.0.1:${port}`
}

export interface Started {
  child: ChildProcess
  /** Resolves with what the pattern caught in a line of its output. */
  saw(pattern: RegExp): Promise<RegExpExecArray>
  stop(): Promise<void>
}

/** Starts a program of the bench, or with `baton:` one of Baton's processes. */
export function start(program: string, args: string[], environment: Record<string, string>): Started {
  const file = program === 'baton' ? main : fileURLToPath(new URL(program, import.meta.url))
  const child = spawn(process.execPath, [file, ...args], {
    env: { PATH: process.env['PATH'], HOME: process.env['HOME'], ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  const waiting: (() => void)[] = []
  const take = (chunk: Buffer): void => {
    output += chunk.toString()
    for (const look of waiting) look()
  }
  child.stdout?.on('data', take)
  child.stderr?.on('data', take)
  return {
    child,
    saw: (pattern) =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          const match = pattern.exec(output)
          if (match) resolve(match)
        }
        waiting.push(look)
        child.once('exit', () =>
          reject(new Error(`${program} ${args.join(' ')} ended:\n${output.slice(-2_000)}`)),
        )
        look()
      }),
    stop: () => end(child),
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGTERM')
  await once(child, 'exit')
}
