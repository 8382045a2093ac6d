import { randomBytes } from 'node:crypto'
import { chmod, chown, cp, lstat, mkdir, readdir, readFile, rename, rm } from 'node:fs/promises'
import { createRequire } from 'node:module'
import path from 'node:path'
import { sha256 } from '../../../core/digest.ts'
import { codeOf, messageOf } from '../../../core/errors.ts'
import { type Account, canEnter, canRun } from './account.ts'
import { EMBEDDED_POSTGRES_FAILED } from './errors.ts'

/**
 * Where everything of one database lies.
 *
 * Usually all of it is below the home folder that the caller chose. When Postgres has to run as another
 * user who cannot come there (a clone below /root, say), the programs and the data move to a folder that
 * it can reach, and the home keeps the password and the log.
 */
export interface Places {
  home: string
  /** Postgres' own data directory. */
  data: string
  initdb: string
  postgres: string
  /** Short, since the path of a Unix socket may have no more than about 100 bytes. */
  sockets: string
  passwordFile: string
  ownerFile: string
  logFile: string
}

const shared = '/var/tmp/baton-postgres'

export async function findPlaces(dataDir: string, account: Account): Promise<Places> {
  const home = path.resolve(dataDir)
  await mkdir(home, { recursive: true })
  const { native, version } = await findPackage()
  const reachable = await canRun(account, path.join(native, 'bin/postgres'))
  const bin = path.join(reachable ? native : await copyPrograms(native, version, account), 'bin')
  const key = sha256(home).slice(0, 12)
  const base = (await canEnter(account, home)) ? home : path.join(await sharedFolder(), key)
  return {
    home,
    data: path.join(base, 'data'),
    initdb: path.join(bin, 'initdb'),
    postgres: path.join(bin, 'postgres'),
    sockets: await socketFolder(base, key, account),
    passwordFile: path.join(home, 'password'),
    ownerFile: path.join(home, 'owner.json'),
    logFile: path.join(home, 'postgres.log'),
  }
}

async function socketFolder(base: string, key: string, account: Account): Promise<string> {
  const beside = path.join(base, 'sockets')
  const folder = beside.length < 80 ? beside : `/tmp/baton-postgres-${process.getuid?.() ?? 0}-${key}`
  await mkdir(base, { recursive: true, mode: 0o755 })
  await mkdir(folder, { mode: 0o700 }).catch(ignoreExisting)
  await assertOurs(folder, account)
  await giveTo(account, folder)
  return folder
}

export async function giveTo(account: Account, file: string): Promise<void> {
  if ('uid' in account) await chown(file, account.uid, account.gid)
}

/** The package's class is not loaded: see docs/decisions/0001-embedded-postgres-runner.md. */
async function findPackage(): Promise<{ native: string; version: string }> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`
  try {
    // Resolved from its parent, since only that one has a right to it.
    const parent = createRequire(import.meta.url).resolve('embedded-postgres')
    const root = path.dirname(path.dirname(createRequire(parent).resolve(name)))
    const { version } = JSON.parse(await readFile(path.join(root, 'package.json'), 'utf8')) as {
      version: string
    }
    return { native: path.join(root, 'native'), version }
  } catch (error) {
    throw EMBEDDED_POSTGRES_FAILED(
      { reason: `the package ${name} is not installed. Run scripts/setup, or set DATABASE_URL.` },
      { cause: error },
    )
  }
}

/**
 * Copies the programs to where the account can run them, once for each version. The copy gets its
 * name only when it is whole, so of two processes at it at once one wins and the other takes its copy.
 */
async function copyPrograms(native: string, version: string, account: Account): Promise<string> {
  const target = path.join(await sharedFolder(), `programs-${version}`)
  if (!(await exists(target))) {
    const draft = `${target}.${randomBytes(6).toString('hex')}`
    try {
      await cp(native, draft, { recursive: true, verbatimSymlinks: true })
      await openToAll(draft)
      await rename(draft, target)
    } catch (error) {
      if (!(await exists(target))) {
        throw EMBEDDED_POSTGRES_FAILED(
          { reason: `no copy at ${target}: ${messageOf(error)}` },
          { cause: error },
        )
      }
    } finally {
      await rm(draft, { recursive: true, force: true })
    }
  }
  if (await canRun(account, path.join(target, 'bin/postgres'))) return target
  throw EMBEDDED_POSTGRES_FAILED({
    reason: `its program cannot be run, neither at ${native} nor at ${target}. Set DATABASE_URL to use another Postgres.`,
  })
}

async function sharedFolder(): Promise<string> {
  await mkdir(shared, { mode: 0o755 }).catch(ignoreExisting)
  await assertOurs(shared, {})
  await chmod(shared, 0o755)
  return shared
}

/** Anybody may make a folder of any name below /tmp: one that another user made may hold another user's programs. */
async function assertOurs(folder: string, account: Account): Promise<void> {
  const found = await lstat(folder)
  const owners = [process.getuid?.() ?? found.uid, ...('uid' in account ? [account.uid] : [])]
  if (found.isDirectory() && owners.includes(found.uid)) return
  throw EMBEDDED_POSTGRES_FAILED({ reason: `${folder} belongs to another user. Remove it.` })
}

/** A strict umask may have kept the installed files from all but root. */
async function openToAll(folder: string): Promise<void> {
  await chmod(folder, 0o755)
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (entry.isSymbolicLink()) continue
    const file = path.join(entry.parentPath, entry.name)
    const executable = entry.isDirectory() || ((await lstat(file)).mode & 0o100) !== 0
    await chmod(file, executable ? 0o755 : 0o644)
  }
}

function ignoreExisting(error: unknown): void {
  if (codeOf(error) !== 'EEXIST') throw error
}

const exists = (file: string): Promise<boolean> =>
  lstat(file).then(
    () => true,
    () => false,
  )
