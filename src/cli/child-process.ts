import { type ChildProcess, spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { childEnvironment } from '../platform/config/config.ts'

const main = fileURLToPath(new URL('../main.ts', import.meta.url))

/** One of Baton's own processes, started by `dev` or `demo`. */
export interface BatonProcess {
  readonly pid: number
  /** How it ended. */
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>
  signal(signal: NodeJS.Signals): void
}

export interface BatonProcessOptions {
  verb: string
  /** Added to this process's own environment. */
  environment: Record<string, string>
  /** Each line of its output; not given: it goes to this process's output. */
  onLine?: (line: string) => void
}

export function startBaton(options: BatonProcessOptions): BatonProcess {
  const child = spawn(process.execPath, [main, options.verb], {
    env: childEnvironment(options.environment),
    stdio: ['ignore', options.onLine ? 'pipe' : 'inherit', options.onLine ? 'pipe' : 'inherit'],
  })
  if (options.onLine) passLines(child, options.onLine)
  const exited = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) => {
    child.on('exit', (code, signal) => resolve({ code, signal }))
    child.on('error', () => resolve({ code: 1, signal: null }))
  })
  return {
    pid: child.pid ?? 0,
    exited,
    signal: (signal) => void child.kill(signal),
  }
}

function passLines(child: ChildProcess, onLine: (line: string) => void): void {
  for (const stream of [child.stdout, child.stderr]) {
    let rest = ''
    stream?.setEncoding('utf8')
    stream?.on('data', (text: string) => {
      const lines = `${rest}${text}`.split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) onLine(line)
    })
  }
}
