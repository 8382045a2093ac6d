import { type ChildProcess, fork } from 'node:child_process'
import type { Command, Report } from './messages.ts'

export interface ChildIdentity {
  /** New at each fork; the name under which the child holds jobs. */
  runner: string
  /** 1 for the first. */
  slot: number
}

export interface ChildExit {
  code: number | null
  signal: NodeJS.Signals | null
  /** It could not even be forked. */
  error?: Error
}

/** A process that was forked, whatever it does. */
export interface ForkedChild {
  readonly pid: number | undefined
  /** Never throws: a child that is gone hears nothing, and its exit says so. */
  send(command: Command): void
  kill(signal: NodeJS.Signals): void
  onReport(listener: (report: Report) => void): void
  readonly exited: Promise<ChildExit>
}

export type Fork = (identity: ChildIdentity) => ForkedChild

/** Forks `modulePath` with `--runner ID --slot N` after `args`. It inherits the output, and the environment unless one is given. */
export function createFork(modulePath: string, args: string[], environment?: NodeJS.ProcessEnv): Fork {
  return ({ runner, slot }) => {
    const child = fork(modulePath, [...args, '--runner', runner, '--slot', String(slot)], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      ...(environment ? { env: environment } : {}),
      // A debugger's port belongs to the master.
      execArgv: process.execArgv.filter((argument) => !argument.startsWith('--inspect')),
    })
    return asForkedChild(child)
  }
}

/** Longest wait for the end of a dead child's channel, ms; it comes with the exit, or just after. */
const lastWordsMs = 500

function asForkedChild(child: ChildProcess): ForkedChild {
  const { promise: exited, resolve } = Promise.withResolvers<ChildExit>()
  child.on('exit', (code, signal) => {
    const end = (): void => resolve({ code, signal })
    // What it said last may still be in the channel, and how it ended is judged by it.
    if (!child.connected) return end()
    child.once('disconnect', end)
    setTimeout(end, lastWordsMs).unref()
  })
  child.on('error', (error) => {
    // Also comes for a message that could not be sent; only one without a process is its end.
    if (child.pid === undefined) resolve({ code: null, signal: null, error })
  })
  return {
    pid: child.pid,
    exited,
    kill: (signal) => void child.kill(signal),
    onReport: (listener) => void child.on('message', (message) => listener(message as Report)),
    send: (command) => {
      if (child.connected) child.send(command, () => undefined)
    },
  }
}
