import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { projectRoot } from '../support/processes.ts'

export interface Ran {
  code: number | null
  stdout: string
  stderr: string
}

export interface RunOptions {
  env?: Record<string, string>
  /** Standard input; none unless said. */
  input?: string
}

/** Runs one command line to its end, as a shell would. Its environment is that of the test and nothing else. */
export async function runBaton(args: string[], { env = {}, input }: RunOptions = {}): Promise<Ran> {
  const child = spawn(process.execPath, [path.join(projectRoot, 'src/main.ts'), ...args], {
    cwd: projectRoot,
    env: {
      PATH: process.env['PATH'] ?? '',
      HOME: process.env['HOME'] ?? '/',
      NODE_COMPILE_CACHE: path.join(tmpdir(), 'baton-test-compile-cache'),
      ...env,
    },
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  // A command that refuses its arguments may end before it has read anything.
  child.stdin.on('error', () => undefined)
  child.stdin.end(input ?? '')
  const [stdout, stderr, [code]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'close') as Promise<[number | null]>,
  ])
  return { code, stdout, stderr }
}
