import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { EMBEDDED_POSTGRES_FAILED } from './errors.ts'

const run = promisify(execFile)

/** Whom Postgres runs as, for `spawn`. Empty: as ourselves. */
export type Account = { uid: number; gid: number } | Record<never, never>

/** What every process of Postgres is started with: nothing of our own environment, which may hold PG* settings. */
export const cleanEnvironment = { PATH: '/usr/local/bin:/usr/bin:/bin', LC_ALL: 'C', TZ: 'UTC' }

/**
 * Postgres refuses to run as root, so root lends it another user: `postgres`, else `nobody`.
 * No user is ever created: starting a development database must not change the machine.
 */
export async function chooseAccount(): Promise<Account> {
  if (process.getuid?.() !== 0) return {}
  for (const name of ['postgres', 'nobody']) {
    const [uid, gid] = await Promise.all([readId('-u', name), readId('-g', name)])
    if (uid && gid) return { uid, gid }
  }
  throw EMBEDDED_POSTGRES_FAILED({
    reason:
      'it may not run as root, and there is no user "postgres" or "nobody" to run it as. Add one, or set DATABASE_URL.',
  })
}

async function readId(flag: '-u' | '-g', name: string): Promise<number | undefined> {
  try {
    return Number((await run('id', [flag, name])).stdout.trim())
  } catch {
    return undefined
  }
}

/** Whether the account can enter the folder. Asked by trying: modes of all parents, ACLs and mounts decide it. */
export async function canEnter(account: Account, folder: string): Promise<boolean> {
  return succeeds(account, '/bin/sh', ['-c', 'cd -- "$1"', 'sh', folder])
}

/** Whether the account can run a program. */
export async function canRun(account: Account, program: string): Promise<boolean> {
  return succeeds(account, program, ['--version'])
}

async function succeeds(account: Account, program: string, args: string[]): Promise<boolean> {
  try {
    await run(program, args, { ...account, cwd: '/', env: cleanEnvironment })
    return true
  } catch {
    return false
  }
}
