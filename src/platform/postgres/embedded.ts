import { rm } from 'node:fs/promises'
import path from 'node:path'
import { EMBEDDED_POSTGRES_FAILED } from './embedded/errors.ts'
import { type Ground, type Launched, launch, prepareGround } from './embedded/launch.ts'
import { releaseHome } from './embedded/owner.ts'
import type { Exit } from './embedded/postmaster.ts'

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
  /** Where to connect: the database `baton`, as superuser. Reading it before the first start throws. */
  readonly url: string
  /** Ready to serve when it resolves. The data of earlier runs are kept. */
  start(): Promise<{ url: string }>
  stop(): Promise<void>
  /** Stops for good, and removes the data and the folder: they may lie where nobody would look for them. */
  discard(): Promise<void>
  /** Sends the postmaster a signal; when it is one that ends it, resolves once it has ended. */
  kill(signal: NodeJS.Signals): Promise<void>
  /** Stops, if it runs, and starts on the same port. */
  restart(): Promise<void>
}

const ending = new Set<NodeJS.Signals>(['SIGKILL', 'SIGTERM', 'SIGINT', 'SIGQUIT', 'SIGABRT', 'SIGSEGV'])

interface Run extends Launched {
  /** Set when we end it ourselves, so that nobody is told of an accident. */
  asked: boolean
}

export function createEmbeddedPostgres(options: EmbeddedPostgresOptions): EmbeddedPostgres {
  const { log = (): void => undefined, settings = {} } = options
  const inTurn = createTurns()
  let ground: Ground | undefined
  let current: Run | undefined
  let last: Launched | undefined
  let folders: string[] = []

  const start = async (): Promise<{ url: string }> => {
    if (current) return { url: current.url }
    const launchOptions = { port: last?.port ?? options.port, settings, log }
    ground ??= await prepareGround(options.dataDir, launchOptions)
    folders = [path.dirname(ground.places.data), ground.places.home]
    const run: Run = { ...(await launch(ground, launchOptions)), asked: false }
    current = last = run
    void run.postmaster.exited.then((exit) => {
      if (current === run) current = undefined
      if (!run.asked) options.onExit?.(exit)
    })
    return { url: run.url }
  }

  const end = async (signal?: NodeJS.Signals): Promise<void> => {
    if (!current) return
    const { postmaster } = current
    current.asked = true
    current = undefined
    if (signal) postmaster.signal(signal)
    await (signal ? postmaster.exited : postmaster.stop())
  }

  const letGo = async (): Promise<void> => {
    await end()
    if (ground) {
      await rm(ground.places.sockets, { recursive: true, force: true })
      await releaseHome(ground.places)
    }
    ground = last = undefined
  }

  return {
    get url() {
      if (!last) throw EMBEDDED_POSTGRES_FAILED({ reason: 'it was not started.' })
      return last.url
    },
    start: () => inTurn(() => start().catch((error: unknown) => letGo().then(() => Promise.reject(error)))),
    stop: () => inTurn(letGo),
    discard: () => inTurn(() => letGo().then(() => removeAll(folders))),
    kill: (signal) =>
      inTurn(async () => (ending.has(signal) ? end(signal) : current?.postmaster.signal(signal))),
    restart: () =>
      inTurn(() =>
        end()
          .then(start)
          .then(() => undefined),
      ),
  }
}

async function removeAll(folders: string[]): Promise<void> {
  for (const folder of folders) await rm(folder, { recursive: true, force: true })
}

/** Calls run one after the other, so that a stop during a start finds something to stop. */
function createTurns(): <T>(work: () => Promise<T>) => Promise<T> {
  let turn: Promise<unknown> = Promise.resolve()
  return (work) => {
    const result = turn.then(work)
    turn = result.catch(() => undefined)
    return result
  }
}
