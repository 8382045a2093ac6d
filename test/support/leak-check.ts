import { afterAll } from 'vitest'
import { messageOf } from '../../src/core/errors.ts'
import { dropDatabase, leftDatabases } from './databases.ts'
import { eventually, type ProcessRow, processTable } from './processes.ts'

// Runs after the last hook of every test file. A test that leaves a connection or a process behind has
// not proven that what it tested can be stopped, and its remains make other tests fail.

// What is closed takes a moment to be gone, and on a busy machine several.
const graceMs = Number(process.env['LEAK_GRACE_MS'] ?? 10_000)

afterAll(async () => {
  const leaks: string[] = []
  for (const name of await leftDatabases()) {
    await dropDatabase(name, graceMs).catch((error: unknown) => leaks.push(messageOf(error)))
  }
  for (const { pid, command } of await childrenLeft()) {
    leaks.push(`process left running: ${command} (${pid})`)
    process.kill(pid, 'SIGKILL')
  }
  if (leaks.length > 0) throw new Error(`this file leaks:\n${leaks.join('\n')}`)
}, 60_000)

/** Those still there after the time that ending may take. */
async function childrenLeft(): Promise<ProcessRow[]> {
  let left: ProcessRow[] = []
  const look = async (): Promise<void> => {
    left = (await processTable()).filter((row) => row.ppid === process.pid)
    if (left.length > 0) throw new Error('children run')
  }
  await eventually(look, { timeoutMs: graceMs }).catch(() => undefined)
  return left
}
