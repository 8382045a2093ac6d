import { execFile } from 'node:child_process'
import { readFile, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { promisify } from 'node:util'
import { codeOf } from '../../../core/errors.ts'
import { EMBEDDED_POSTGRES_FAILED } from './errors.ts'
import type { Places } from './places.ts'

// Who may run Postgres on a home.
//
// One Baton process owns a home: its pid stands in owner.json. The file of a process that died stays
// behind, and so may its postmaster, for as long as the watchdog (watchdog.ts) needs to stop it, or
// for good if that one was killed too. So a new owner first makes sure that the old one is dead, then
// ends the postmaster that is left, then removes a postmaster.pid that names nobody of ours: Postgres
// itself only asks whether *some* process has that pid, and in a container one always has.
// A pid alone proves nothing, since pids come again; the command line says whose process it is.

const run = promisify(execFile)

interface Owner {
  pid: number
  /** When the process began, ms; tells two processes of the same pid apart, in containers an everyday thing. */
  origin: number
}

/** Takes the home for this process. @throws when another live process has it */
export async function claimHome(places: Places): Promise<void> {
  const mine: Owner = { pid: process.pid, origin: performance.timeOrigin }
  for (let attempt = 0; attempt < 10; attempt += 1) {
    try {
      await writeFile(places.ownerFile, JSON.stringify(mine), { flag: 'wx', mode: 0o600 })
      return
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw error
    }
    const owner = await readOwner(places.ownerFile)
    if (owner && (await isAlive(owner))) {
      const reason = `process ${owner.pid} uses ${places.home} already. Stop that one, or choose another folder.`
      throw EMBEDDED_POSTGRES_FAILED({ reason })
    }
    await rm(places.ownerFile, { force: true })
  }
  throw EMBEDDED_POSTGRES_FAILED({ reason: `${places.ownerFile} cannot be taken` })
}

export async function releaseHome(places: Places): Promise<void> {
  await rm(places.ownerFile, { force: true })
}

/** Ends a postmaster that a dead owner left behind, and removes what would keep a new one from starting. */
export async function endOrphan(places: Places, log: (line: string) => void): Promise<void> {
  const file = path.join(places.data, 'postmaster.pid')
  const pid = Number.parseInt((await readFile(file, 'utf8').catch(() => '')).split('\n')[0] ?? '', 10)
  if (!(pid > 1)) return
  for (const signal of ['SIGINT', 'SIGQUIT', 'SIGKILL'] as const) {
    if (!(await isPostmaster(pid, places.data))) break
    log(`ending the Postgres that an earlier run left behind (process ${pid}, ${signal})`)
    sendSignal(pid, signal)
    for (let waited = 0; waited < 10_000 && (await isPostmaster(pid, places.data)); waited += 50)
      await pause(50)
  }
  await rm(file, { force: true })
}

async function readOwner(file: string): Promise<Owner | undefined> {
  try {
    return JSON.parse(await readFile(file, 'utf8')) as Owner
  } catch {
    return undefined
  }
}

async function isAlive(owner: Owner): Promise<boolean> {
  if (owner.pid === process.pid) return owner.origin === performance.timeOrigin
  return /\bnode\b|baton/.test(await commandOf(owner.pid))
}

const isPostmaster = async (pid: number, data: string): Promise<boolean> =>
  (await commandOf(pid)).includes(`-D ${data} `)

/** The command line of a live process, else an empty text. */
async function commandOf(pid: number): Promise<string> {
  if (process.platform === 'linux') {
    const raw = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
    return raw.replaceAll('\0', ' ')
  }
  const found = await run('ps', ['-ww', '-o', 'args=', '-p', String(pid)]).catch(() => ({ stdout: '' }))
  return found.stdout
}

function sendSignal(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch (error) {
    if (codeOf(error) !== 'ESRCH') throw error
  }
}
