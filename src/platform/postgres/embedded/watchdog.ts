import { type SpawnOptions, spawn } from 'node:child_process'

/**
 * Ends a process when ours is gone: a shell holds the reading end of a pipe from us and sends the signal
 * when the pipe breaks. The kernel closes it whatever ended us, SIGKILL too.
 *
 * @returns calls it off, for when the process has ended by itself and its pid may be another's
 */
export function startWatchdog(pid: number, signal: 'INT' | 'KILL', options: SpawnOptions = {}): () => void {
  const script = 'read -r _ || kill "-$1" "$2"'
  const dog = spawn('/bin/sh', ['-c', script, 'baton-watchdog', signal, String(pid)], {
    cwd: '/',
    ...options,
    // A session of its own, so that a Ctrl-C in the terminal does not end it before what it guards.
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  // Without it the process runs all the same; whoever starts next has to deal with an orphan.
  dog.on('error', () => undefined)
  dog.stdin?.on('error', () => undefined)
  dog.unref()
  return () => void dog.stdin?.end('\n')
}
