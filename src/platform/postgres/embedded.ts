import { createServer } from 'node:net'
import { once } from 'node:events'
import { rm } from 'node:fs/promises'
import { setTimeout as pause } from 'node:timers/promises'
import pg from 'pg'
import { messageOf } from '../../core/errors.ts'
import { type Account, chooseAccount } from './embedded/account.ts'
import { prepareCluster } from './embedded/cluster.ts'
import { EMBEDDED_POSTGRES_FAILED } from './embedded/errors.ts'
import { claimHome, endOrphan, releaseHome } from './embedded/owner.ts'
import { findPlaces, type Places } from './embedded/places.ts'
import { type Exit, lastWords, logLength, type Postmaster, spawnPostmaster } from './embedded/postmaster.ts'

export interface EmbeddedPostgresOptions {
  /** The folder that keeps the data, the password and the log. Made when missing; one process may use it at a time. */
  dataDir: string
  /** Port on 127.0.0.1. Not given: a free one, kept until `stop`. */
  port?: number
  log?: (line: string) => void
  /** Settings of postgresql.conf over the development ones, such as `{ fsync: 'off' }` for tests. */
  settings?: Record<string, string>
  /** Told when Postgres ends without having been asked to. */
  onExit?: (exit: Exit) => void
}

/** A Postgres of our own for development, demo and tests. */
export interface EmbeddedPostgres {
  /** Where to connect: the database `baton` as its superuser. @throws before the first start */
  readonly url: string
  /** Ready to serve when it resolves. The data of earlier runs are kept. */
  start(): Promise<{ url: string }>
  stop(): Promise<void>
  /** Sends the postmaster a signal; when it is one that ends it, resolves once it has ended. */
  kill(signal: NodeJS.Signals): Promise<void>
  /** Stops, if it runs, and starts on the same port. */
  restart(): Promise<void>
}

/** Longest wait until it serves, ms: after a crash it replays its log first. */
const readyWithinMs = 60_000
const database = 'baton'

interface Run {
  postmaster: Postmaster
  /** Set when we end it ourselves, so that nobody is told of an accident. */
  asked: boolean
}

interface Ground {
  places: Places
  account: Account
  password: string
}

export function createEmbeddedPostgres(options: EmbeddedPostgresOptions): EmbeddedPostgres {
  const log = options.log ?? ((): void => undefined)
  let ground: Ground | undefined
  let current: Run | undefined
  let port = options.port
  // Calls run one after the other, so that a stop during a start finds something to stop.
  let turn: Promise<unknown> = Promise.resolve()
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const result = turn.then(work, work)
    turn = result.catch(() => undefined)
    return result
  }

  const urlNow = (): string => {
    if (!ground || port === undefined) throw EMBEDDED_POSTGRES_FAILED({ reason: 'it was not started' })
    return urlOf(ground.password, port, database)
  }

  const launch = async (at: Ground, chosen: number): Promise<void> => {
    const settings = { port: String(chosen), ...options.settings }
    const postmaster = await spawnPostmaster(at.places, at.account, settings)
    const run: Run = { postmaster, asked: false }
    try {
      const offset = await logLength(at.places.logFile)
      await waitUntilReady(at, chosen, { postmaster, offset })
    } catch (error) {
      await postmaster.stop()
      throw error
    }
    port = chosen
    current = run
    void postmaster.exited.then((exit) => {
      if (current === run) current = undefined
      if (!run.asked) options.onExit?.(exit)
    })
  }

  const start = async (): Promise<void> => {
    if (current) return
    if (!ground) {
      const account = await chooseAccount()
      const places = await findPlaces(options.dataDir, account)
      await claimHome(places)
      try {
        await endOrphan(places, log)
        const password = await prepareCluster(places, account, options.settings?.['fsync'] !== 'off')
        ground = { places, account, password }
      } catch (error) {
        await releaseHome(places)
        throw error
      }
    }
    await launchOnPort(ground, port, { launch, log })
  }

  const end = async (signal?: NodeJS.Signals): Promise<void> => {
    if (!current) return
    current.asked = true
    const { postmaster } = current
    if (signal) postmaster.signal(signal)
    await (signal ? postmaster.exited : postmaster.stop())
    current = undefined
  }

  const letGo = async (): Promise<void> => {
    await end()
    if (!ground) return
    await rm(ground.places.sockets, { recursive: true, force: true })
    await releaseHome(ground.places)
    ground = undefined
    port = options.port
  }

  return {
    get url() {
      return urlNow()
    },
    start: () =>
      inTurn(async () => {
        await start().catch(async (error: unknown) => {
          await letGo()
          throw error
        })
        return { url: urlNow() }
      }),
    stop: () => inTurn(letGo),
    kill: (signal) =>
      inTurn(async () => {
        if (ending.has(signal)) await end(signal)
        else current?.postmaster.signal(signal)
      }),
    restart: () =>
      inTurn(async () => {
        await end()
        await start()
      }),
  }
}

const ending = new Set<NodeJS.Signals>(['SIGKILL', 'SIGTERM', 'SIGINT', 'SIGQUIT', 'SIGABRT', 'SIGSEGV'])

const urlOf = (password: string, port: number, name: string): string =>
  `postgres://postgres:${password}@127.0.0.1:${port}/${name}`

/**
 * A port found free may be taken before Postgres has it, so a chosen one is chosen again.
 * And after a postmaster was killed its last processes may need a moment to notice it.
 */
async function launchOnPort(
  at: Ground,
  fixed: number | undefined,
  { launch, log }: { launch(at: Ground, port: number): Promise<void>; log(line: string): void },
): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await launch(at, fixed ?? (await freePort()))
      return
    } catch (error) {
      const reason = messageOf(error)
      const taken = fixed === undefined && reason.includes('could not bind')
      const lingering = /pre-existing shared memory block|lock file .* already exists/.test(reason)
      if (attempt >= (taken ? 5 : lingering ? 40 : 1)) throw error
      log('Postgres could not start yet, trying again')
      await pause(taken ? 0 : 250)
      await endOrphan(at.places, log)
    }
  }
}

/** By connecting: a line in a log says what was, and its wording changes with version and locale. */
async function waitUntilReady(
  at: Ground,
  port: number,
  { postmaster, offset }: { postmaster: Postmaster; offset: number },
): Promise<void> {
  let exit: Exit | undefined
  void postmaster.exited.then((value) => {
    exit = value
  })
  const deadline = performance.now() + readyWithinMs
  let last = ''
  while (!exit && performance.now() < deadline) {
    try {
      return await ensureDatabase(urlOf(at.password, port, 'postgres'))
    } catch (error) {
      last = messageOf(error)
    }
    await Promise.race([postmaster.exited, pause(25)])
  }
  const said = await lastWords(at.places.logFile, offset)
  const how = exit ? `it ended with ${exit.signal ?? `code ${exit.code}`}` : `not ready in time (${last})`
  throw EMBEDDED_POSTGRES_FAILED({ reason: `${how}.\n${said}` })
}

async function ensureDatabase(url: string): Promise<void> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5_000 })
  client.on('error', () => undefined)
  try {
    await client.connect()
    const { rowCount } = await client.query('SELECT FROM pg_database WHERE datname = $1', [database])
    if (rowCount === 0) await client.query(`CREATE DATABASE ${database}`)
  } finally {
    await client.end()
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  return typeof address === 'object' && address ? address.port : 0
}
