import { spawn } from 'node:child_process'
import { closeSync, existsSync, openSync } from 'node:fs'
import type { Clock } from '../../core/clock.ts'
import { codeOf } from '../../core/errors.ts'
import { processIdentity } from './process-identity.ts'
import { type ProcessRecord, type RevisionSpec, targetVariable } from './record.ts'

/** How a process ended; of one that was taken over nobody can say. */
export interface ProcessExit {
  how: string
}

/** The process of a target. */
export interface TargetProcess {
  readonly record: ProcessRecord
  /** Monotonic ms; of one that was taken over when that was. */
  readonly startedMs: number
  readonly running: boolean
  /** Resolves when it has ended; its group is killed then, so that nothing of it is left. */
  readonly exited: Promise<ProcessExit>
  /** To its whole group; nothing happens when it is gone. */
  signal(signal: NodeJS.Signals): void
}

export interface LaunchOptions {
  spec: RevisionSpec
  port: number
  /** Where its output goes. */
  file: string
  /** What it is found by, when its pid was not written any more. */
  mark: string
  clock: Clock
  /** The whole environment, but for what is set here. */
  environment: NodeJS.ProcessEnv
}

/** @throws what `spawn` said: no such command, no such directory */
export async function launchProcess(options: LaunchOptions): Promise<TargetProcess> {
  const { spec, port, file, mark, clock } = options
  const [command = '', ...args] = spec.command
  const output = openSync(file, 'a', 0o600)
  const { promise: exited, resolve } = Promise.withResolvers<ProcessExit>()
  try {
    const child = spawn(command, args, {
      cwd: spec.directory,
      env: {
        ...options.environment,
        ...spec.environment,
        PORT: String(port),
        HOST: '127.0.0.1',
        [targetVariable]: mark,
      },
      // A session of its own: neither the terminal nor the platform signals it, and it outlives a gateway that is killed.
      detached: true,
      stdio: ['ignore', output, output],
    })
    await new Promise<void>((done, fail) =>
      child.once('spawn', done).once('error', (error) => fail(explained(error, spec))),
    )
    const pid = child.pid ?? 0
    const identity = processIdentity(pid) ?? 'gone'
    // Its answer to a signal that cannot be sent; the exit says the rest.
    child.on('error', () => undefined)
    child.on('exit', (code, signal) => resolve({ how: signal ?? `exit code ${code}` }))
    // The gateway's own life does not hang on it.
    child.unref()
    return watched({ pid, port, identity }, exited, clock)
  } finally {
    closeSync(output)
  }
}

/** The system says the same of a program that is missing and of a directory. */
function explained(error: Error, { command, directory }: RevisionSpec): Error {
  if (codeOf(error) !== 'ENOENT') return error
  const missing = existsSync(directory) ? `program ${command[0]}` : `directory ${directory}`
  return new Error(`there is no ${missing}`, { cause: error })
}

const lookMs = 250

/** A process that an earlier gateway started; undefined when it is gone. */
export function adoptProcess(record: ProcessRecord, clock: Clock): TargetProcess | undefined {
  if (processIdentity(record.pid) !== record.identity) return undefined
  const { promise: exited, resolve } = Promise.withResolvers<ProcessExit>()
  // It is nobody's child here, so it has to be looked after.
  const timer = setInterval(() => {
    if (processIdentity(record.pid) === record.identity) return
    clearInterval(timer)
    resolve({ how: 'not known, it was started by an earlier gateway' })
  }, lookMs).unref()
  return watched(record, exited, clock)
}

function watched(record: ProcessRecord, ended: Promise<ProcessExit>, clock: Clock): TargetProcess {
  let running = true
  const signalGroup = (signal: NodeJS.Signals): void => {
    try {
      process.kill(-record.pid, signal)
    } catch (error) {
      if (codeOf(error) !== 'ESRCH' && codeOf(error) !== 'EPERM') throw error
    }
  }
  const exited = ended.then((exit) => {
    running = false
    // What it has left behind: its number is not given away while one of its group lives.
    signalGroup('SIGKILL')
    return exit
  })
  return {
    record,
    startedMs: clock.monotonicMs(),
    exited,
    get running() {
      return running
    },
    signal: (signal) => {
      if (running && processIdentity(record.pid) === record.identity) signalGroup(signal)
    },
  }
}
