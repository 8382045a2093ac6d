import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'
import { messageOf } from '../../../core/errors.ts'
import { type Account, cleanEnvironment } from './account.ts'
import { EMBEDDED_POSTGRES_FAILED } from './errors.ts'
import { giveTo, type Places } from './places.ts'

const run = promisify(execFile)

/**
 * Makes sure of a data directory that these programs can read.
 *
 * The password is random and lies beside the data with mode 0600. Trusting everybody on loopback would
 * be simpler, but a superuser of Postgres can run programs, so on a shared machine that would hand
 * every local user our account.
 *
 * @returns the password of the user `postgres`
 */
export async function prepareCluster(places: Places, account: Account, sync: boolean): Promise<string> {
  const [password, made] = await Promise.all([
    readIfThere(places.passwordFile),
    readIfThere(path.join(places.data, 'PG_VERSION')),
  ])
  if (made !== undefined && password !== undefined) {
    await assertVersion(places, made, account)
    return password
  }
  if (made !== undefined) await forgetMovedData(places)
  const fresh = randomBytes(24).toString('base64url')
  await initialise(places, account, { password: fresh, sync })
  return fresh
}

/** Of a home that was removed the moved data is left over: whoever removed it wanted a new start. */
async function forgetMovedData({ data, home, passwordFile }: Places): Promise<void> {
  if (path.dirname(data) === home) {
    throw EMBEDDED_POSTGRES_FAILED({
      reason: `${passwordFile} is gone. Restore it, or remove ${home} to start anew.`,
    })
  }
  await rm(data, { recursive: true, force: true })
}

/** Crash-safe: the data get their name last, and without that name the next start begins again. */
async function initialise(
  places: Places,
  account: Account,
  options: { password: string; sync: boolean },
): Promise<void> {
  const draft = `${places.data}.new`
  const secret = `${places.data}.password`
  await rm(draft, { recursive: true, force: true })
  await mkdir(path.dirname(draft), { recursive: true, mode: 0o755 })
  await mkdir(draft, { mode: 0o700 })
  await giveTo(account, draft)
  try {
    await writeFile(secret, options.password, { mode: 0o600 })
    await giveTo(account, secret)
    const flags = [`--pgdata=${draft}`, `--pwfile=${secret}`, '--username=postgres', '--auth=scram-sha-256']
    // The built-in locale sorts and folds alike on every machine, whatever locales that one has.
    flags.push('--encoding=UTF8', '--no-locale', '--locale-provider=builtin', '--builtin-locale=C.UTF-8')
    if (!options.sync) flags.push('--no-sync')
    await run(places.initdb, flags, { ...account, cwd: '/', env: cleanEnvironment })
  } catch (error) {
    const said = typeof error === 'object' && error !== null && 'stderr' in error ? String(error.stderr) : ''
    const reason = `initdb failed: ${said.trim() || messageOf(error)}`
    throw EMBEDDED_POSTGRES_FAILED({ reason }, { cause: error })
  } finally {
    await rm(secret, { force: true })
  }
  await writeFile(places.passwordFile, options.password, { mode: 0o600 })
  await rename(draft, places.data)
}

async function assertVersion(places: Places, made: string, account: Account): Promise<void> {
  const { stdout } = await run(places.postgres, ['--version'], {
    ...account,
    cwd: '/',
    env: cleanEnvironment,
  })
  const major = /(\d+)/.exec(stdout)?.[1]
  if (major === made.trim()) return
  throw EMBEDDED_POSTGRES_FAILED({
    reason:
      `the data at ${places.data} are of Postgres ${made.trim()}, this release of Baton brings Postgres ${major ?? '?'}. ` +
      'Dump them with the release that made them (pg_dump) and load them into the new one, ' +
      `or remove ${places.home} to start anew.`,
  })
}

async function readIfThere(file: string): Promise<string | undefined> {
  try {
    return (await readFile(file, 'utf8')).trim()
  } catch {
    return undefined
  }
}
