import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import { promisify } from 'node:util'
import { onTestFinished } from 'vitest'
import { codeOf } from '../../src/core/errors.ts'

export const projectRoot = path.resolve(import.meta.dirname, '../..')

export interface Exit {
  code: number | null
  signal: NodeJS.Signals | null
}

/** A running `baton`. */
export interface BatonProcess {
  readonly pid: number
  readonly child: ChildProcess
  /** Every line so far, of standard output and standard error, in the order of arrival. */
  readonly lines: readonly string[]
  /** The same of standard output alone. */
  readonly stdout: readonly string[]
  readonly exit: Promise<Exit>
  /** The first line, past or to come, that matches. Rejects with the output when the process ends before. */
  waitForLine(match: RegExp | ((line: string) => boolean), timeoutMs?: number): Promise<string>
  /** To the process alone. */
  signal(signal: NodeJS.Signals): void
  /** To the process and its children, as a terminal's Ctrl-C or a platform's stop does it. */
  signalGroup(signal: NodeJS.Signals): void
  /** Ends it and its children by force, and waits for it. May be repeated. */
  kill(): Promise<Exit>
}

/**
 * Starts `node src/main.ts …` in a process group of its own.
 *
 * The environment is PATH, HOME, a compile cache and `env`, nothing else. Within a test it is killed at the test's end;
 * outside of one (`beforeAll`) whoever starts it has to call `kill`.
 */
export function spawnBaton(args: string[], env: Record<string, string> = {}): BatonProcess {
  return spawnNode([path.join(projectRoot, 'src/main.ts'), ...args], env)
}

/** As spawnBaton, for any script of the project's Node. */
export function spawnNode(args: string[], env: Record<string, string> = {}): BatonProcess {
  const child = spawn(process.execPath, args, {
    cwd: projectRoot,
    env: {
      PATH: process.env['PATH'] ?? '',
      HOME: process.env['HOME'] ?? '/',
      // Half of the work of a start is the compilation of what the last start compiled.
      NODE_COMPILE_CACHE: path.join(tmpdir(), 'baton-test-compile-cache'),
      ...env,
    },
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const pid = child.pid ?? 0
  const output = collect(child)
  const exit = once(child, 'close').then(([code, signal]: unknown[]) => ({ code, signal }) as Exit)
  const signalGroup = (signal: NodeJS.Signals): void => sendSignal(-pid, signal)
  const kill = async (): Promise<Exit> => {
    signalGroup('SIGKILL')
    return exit
  }
  atEndOfTest(() => kill())
  return {
    pid,
    child,
    lines: output.lines,
    stdout: output.stdout,
    exit,
    waitForLine: (match, timeoutMs = 30_000) => output.wait(match, exit, timeoutMs),
    signal: (signal) => void child.kill(signal),
    signalGroup,
    kill,
  }
}

type Match = RegExp | ((line: string) => boolean)

function collect(child: ChildProcess) {
  const lines: string[] = []
  const stdout: string[] = []
  const watchers = new Set<(line: string) => void>()
  const take = (line: string): void => {
    lines.push(line)
    for (const watcher of watchers) watcher(line)
  }
  if (child.stdout)
    createInterface(child.stdout)
      .on('line', (line) => void stdout.push(line))
      .on('line', take)
  if (child.stderr) createInterface(child.stderr).on('line', take)

  const wait = async (match: Match, exit: Promise<Exit>, timeoutMs: number): Promise<string> => {
    const matches = (line: string): boolean => (match instanceof RegExp ? match.test(line) : match(line))
    const { promise, resolve, reject } = Promise.withResolvers<string>()
    const fail = (why: string): void =>
      reject(new Error(`${why} before ${String(match)}. Output:\n${lines.slice(-40).join('\n')}`))
    const watcher = (line: string): void => void (matches(line) && resolve(line))
    const timer = setTimeout(() => fail(`${timeoutMs} ms passed`), timeoutMs)
    watchers.add(watcher)
    for (const line of lines) watcher(line)
    // After the last line: 'close' comes when the pipes are empty.
    void exit.then(({ code, signal }) => fail(`it ended with ${signal ?? code}`))
    try {
      return await promise
    } finally {
      clearTimeout(timer)
      watchers.delete(watcher)
    }
  }
  return { lines, stdout, wait }
}

/** Registers a clean-up, when called from within a test. */
export function atEndOfTest(work: () => unknown): void {
  try {
    onTestFinished(async () => void (await work()))
  } catch {
    // Outside of a test there is no end of one: the caller cleans up, and the leak check sees to it.
  }
}

// Each worker of vitest has a thousand ports of its own, below those that the system gives to whoever asks for any:
// else the server or the connection of another test could take a port between its choice and its use, which is a
// second for a process that has to boot, or while its server is away in the middle of a test.
const portsOfWorker = 20_000 + (Number(process.env['VITEST_POOL_ID'] ?? 0) % 12) * 1_000
// Files of one worker, and other runs on this machine, begin elsewhere.
let portsGiven = randomInt(1_000)

/** A port of 127.0.0.1 on which nothing listens just now, and which is given to no other test. */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 1_000; attempt += 1) {
    const port = portsOfWorker + (portsGiven++ % 1_000)
    if (claimPort(port) && (await isFree(port))) return port
  }
  throw new Error(`no port from ${portsOfWorker} on is free`)
}

const claims = path.join(tmpdir(), 'baton-test-ports')
const claimed: string[] = []
process.once('exit', () => {
  for (const file of claimed) rmSync(file, { force: true })
})

/**
 * Until this process ends the port is given to no other run on this machine either: its server would answer our
 * requests as if it were the one that we are about to start.
 */
function claimPort(port: number): boolean {
  const file = path.join(claims, String(port))
  mkdirSync(claims, { recursive: true })
  try {
    if (isAlive(Number(readFileSync(file, 'utf8')))) return false
    rmSync(file, { force: true })
  } catch {
    // Nobody has claimed it yet, or another has just given it up.
  }
  try {
    writeFileSync(file, String(process.pid), { flag: 'wx' })
  } catch {
    return false
  }
  claimed.push(file)
  return true
}

function isAlive(pid: number): boolean {
  try {
    return pid > 0 && process.kill(pid, 0)
  } catch {
    return false
  }
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer().listen(port, '127.0.0.1')
  try {
    await once(server, 'listening')
  } catch {
    return false
  }
  server.close()
  await once(server, 'close')
  return true
}

export interface EventuallyOptions {
  /** Default 15,000 ms: patience costs nothing where it is not needed, and a busy machine needs it. */
  timeoutMs?: number
  /** Default 20 ms. */
  everyMs?: number
}

/** Repeats `fn` until it does not throw; its last error when time is up. For what can only be asked, not awaited. */
export async function eventually<T>(fn: () => T | Promise<T>, options: EventuallyOptions = {}): Promise<T> {
  const deadline = performance.now() + (options.timeoutMs ?? 15_000)
  for (;;) {
    try {
      return await fn()
    } catch (error) {
      if (performance.now() >= deadline) throw error
      await pause(options.everyMs ?? 20)
    }
  }
}

export interface ProcessRow {
  pid: number
  ppid: number
  command: string
}

const run = promisify(execFile)

/** All processes that run; those that have ended and wait to be noticed by their parent do not count. */
export async function processTable(): Promise<ProcessRow[]> {
  if (process.platform === 'linux') {
    const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
    return (await Promise.all(pids.map(readProcess))).filter((row) => row !== undefined)
  }
  const { stdout } = await run('ps', ['-A', '-ww', '-o', 'pid=,ppid=,stat=,args='])
  return stdout.split('\n').flatMap((line) => {
    const [, pid, ppid, state = '', command = ''] = /^\s*(\d+)\s+(\d+)\s+(\S+)\s+(.*)$/.exec(line) ?? []
    return pid && !state.startsWith('Z') ? [{ pid: Number(pid), ppid: Number(ppid), command }] : []
  })
}

async function readProcess(pid: string): Promise<ProcessRow | undefined> {
  try {
    const [stat, command] = await Promise.all([
      readFile(`/proc/${pid}/stat`, 'utf8'),
      readFile(`/proc/${pid}/cmdline`, 'utf8'),
    ])
    // The name in brackets may itself contain brackets and spaces.
    const [state, ppid] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    if (state === 'Z' || state === 'X') return undefined
    return { pid: Number(pid), ppid: Number(ppid), command: command.replaceAll('\0', ' ').trim() }
  } catch {
    return undefined
  }
}

export const isRunning = async (pid: number): Promise<boolean> =>
  (await processTable()).some((row) => row.pid === pid)

function sendSignal(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch (error) {
    if (codeOf(error) !== 'ESRCH') throw error
  }
}
