import { setTimeout as pause } from 'node:timers/promises'
import pg from 'pg'
import { messageOf } from '../../../core/errors.ts'
import { freePort } from '../../free-port.ts'
import { type Account, chooseAccount } from './account.ts'
import { prepareCluster } from './cluster.ts'
import { EMBEDDED_POSTGRES_FAILED } from './errors.ts'
import { claimHome, endOrphan, releaseHome } from './owner.ts'
import { findPlaces, type Places } from './places.ts'
import { type Exit, lastWords, logLength, type Postmaster, spawnPostmaster } from './postmaster.ts'

/** A data directory that is ours, ready for a postmaster. */
export interface Ground {
  places: Places
  account: Account
  password: string
}

export interface LaunchOptions {
  /** Not given: any free one. */
  port: number | undefined
  settings: Record<string, string>
  log(line: string): void
}

export interface Launched {
  postmaster: Postmaster
  port: number
  url: string
}

/** Longest wait until it serves, ms: after a crash it replays its write-ahead log first. */
const readyWithinMs = 60_000
const database = 'baton'

/** Finds or makes the data directory and takes it for this process. */
export async function prepareGround(dataDir: string, options: LaunchOptions): Promise<Ground> {
  const account = await chooseAccount()
  const places = await findPlaces(dataDir, account)
  await claimHome(places)
  try {
    await endOrphan(places, options.log)
    const password = await prepareCluster(places, account, options.settings['fsync'] !== 'off')
    return { places, account, password }
  } catch (error) {
    await releaseHome(places)
    throw error
  }
}

/**
 * Starts a postmaster and waits until it serves.
 *
 * A port found free may be taken before Postgres has it, so a chosen one is chosen again.
 * And after a postmaster was killed its last processes need a moment to notice it.
 */
export async function launch(ground: Ground, options: LaunchOptions): Promise<Launched> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await launchOnce(ground, options.port ?? (await freePort()), options.settings)
    } catch (error) {
      const reason = messageOf(error)
      const taken = options.port === undefined && reason.includes('could not bind')
      const lingering = /pre-existing shared memory block|lock file .* already exists/.test(reason)
      if (attempt >= (taken ? 5 : lingering ? 40 : 1)) throw error
      options.log('Postgres could not start yet, trying again')
      await pause(taken ? 0 : 250)
      await endOrphan(ground.places, options.log)
    }
  }
}

async function launchOnce(ground: Ground, port: number, settings: Record<string, string>): Promise<Launched> {
  const { places, account, password } = ground
  const offset = await logLength(places.logFile)
  const postmaster = await spawnPostmaster(places, account, { port: String(port), ...settings })
  try {
    await waitUntilReady(postmaster, urlOf(password, port, 'postgres'))
  } catch (error) {
    await postmaster.stop()
    const reason = `${messageOf(error)}\n${await lastWords(places.logFile, offset)}`
    throw EMBEDDED_POSTGRES_FAILED({ reason }, { cause: error })
  }
  return { postmaster, port, url: urlOf(password, port, database) }
}

/** By connecting: a line in a log says what was, and its wording changes with version and locale. */
async function waitUntilReady(postmaster: Postmaster, url: string): Promise<void> {
  let exit: Exit | undefined
  // Heard at once also while a stranger on the port keeps us waiting for an answer.
  const over = postmaster.exited.then((value) => {
    exit = value
  })
  const deadline = performance.now() + readyWithinMs
  let last: unknown
  while (!exit && performance.now() < deadline) {
    const answer = await Promise.race([over, ensureDatabase(url).then(() => 'ready', toError)])
    if (answer === 'ready') return
    last = answer
    await Promise.race([over, pause(25)])
  }
  const how = exit
    ? `it ended with ${exit.signal ?? `code ${exit.code}`}.`
    : `not ready in time (${messageOf(last)}).`
  throw new Error(how)
}

const toError = (error: unknown): unknown => error

async function ensureDatabase(url: string): Promise<void> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5_000 })
  client.on('error', () => undefined)
  // Not ended when this fails: there is no connection then, and `end` would wait for one.
  await client.connect()
  try {
    const { rowCount } = await client.query('SELECT FROM pg_database WHERE datname = $1', [database])
    if (rowCount === 0) await client.query(`CREATE DATABASE ${database}`)
  } finally {
    await client.end()
  }
}

const urlOf = (password: string, port: number, name: string): string =>
  `postgres://postgres:${password}@127.0.0.1:${port}/${name}`
