import { randomBytes } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { messageOf } from '../../core/errors.ts'
import type { Config } from '../../platform/config/config.ts'
import { freePort } from '../../platform/free-port.ts'
import { createEmbeddedPostgres } from '../../platform/postgres/embedded.ts'
import { createPostgres } from '../../platform/postgres/postgres.ts'
import { type BatonProcess, startBaton } from '../child-process.ts'
import { stateFolder } from '../compose/database.ts'
import { release } from '../release.ts'
import { createWebClient, waitUntilReady } from '../web-client.ts'
import { badInput } from './scenes/bad-input.ts'
import { killedChild } from './scenes/killed-child.ts'
import { killedDatabase } from './scenes/killed-database.ts'
import { pushes } from './scenes/pushes.ts'
import { realFiles } from './scenes/real-files.ts'
import { rolledWorker } from './scenes/rolled-worker.ts'
import { states } from './scenes/states.ts'
import { stoppedWorker } from './scenes/stopped-worker.ts'
import { childPids, type Scene, type Stage, until } from './stage.ts'

const scenes: Scene[] = [
  realFiles,
  killedChild,
  stoppedWorker,
  rolledWorker,
  killedDatabase,
  pushes,
  states,
  badInput,
]

export interface DemoOptions {
  config: Config
  /** Leaves everything running until a stop signal. */
  keep: boolean
  print(line: string): void
  /** Resolves when somebody wants it to end. */
  stopped: Promise<void>
}

/** Plays every scene. @returns whether every promise held */
export async function runDemo(options: DemoOptions): Promise<boolean> {
  const { print } = options
  const undo: (() => Promise<unknown>)[] = []
  try {
    const { stage, results, key, address } = await build(options, undo)
    print(`dashboard  ${address}/dashboard`)
    print(`key        ${key}`)
    const played = await Promise.race([
      playAll(stage, print, results).then(() => true),
      options.stopped.then(() => false),
    ])
    const kept = results.filter(Boolean).length
    print(`\n${kept} of ${results.length} promises kept`)
    if (!played) {
      print('Stopped before its end: the rest was not tried.')
      return false
    }
    if (options.keep) {
      print(`Left running: ${address}/dashboard with the key ${key}. Stop with Ctrl-C.`)
      await options.stopped
    }
    return results.length > 0 && kept === results.length
  } finally {
    for (const step of undo.reverse()) await step().catch((error: unknown) => print(messageOf(error)))
  }
}

async function playAll(stage: Stage, print: (line: string) => void, results: boolean[]): Promise<void> {
  for (const scene of scenes) {
    print(`\n${scene.title}`)
    try {
      await scene.play(stage)
    } catch (error) {
      stage.promise(`the scene came to its end: ${messageOf(error)}`, false)
      results.push(false)
    }
  }
}

async function build(
  options: DemoOptions,
  undo: (() => Promise<unknown>)[],
): Promise<{ stage: Stage; results: boolean[]; key: string; address: string }> {
  const { config, print } = options
  const folder = await mkdtemp(path.join(tmpdir(), 'baton-demo-'))
  undo.push(() => rm(folder, { recursive: true, force: true }))
  const server = config.databaseUrl
    ? undefined
    : createEmbeddedPostgres({ dataDir: path.join(folder, 'postgres') })
  if (server) undo.push(() => server.discard())
  const url = config.databaseUrl ?? (await server?.start())?.url ?? ''
  print(
    `Postgres   ${server ? 'embedded' : 'DATABASE_URL'}; queues on ${config.redisUrl ? 'Redis' : 'Postgres'}`,
  )
  await release(url)

  const postgres = createPostgres({ url, max: 4, applicationName: 'baton demo', onError: () => undefined })
  undo.push(() => postgres.close())
  await postgres.query('DROP TABLE IF EXISTS demo_effects')
  await postgres.query('CREATE TABLE demo_effects (scene text NOT NULL, n integer NOT NULL)')

  const port = await freePort()
  const address = `http://127.0.0.1:${port}`
  const key = `demo-${randomBytes(12).toString('hex')}`
  const environment = demoEnvironment({ url, port, key, folder })
  await mkdir(stateFolder(), { recursive: true })
  const logFile = path.join(stateFolder(), 'demo.log')
  const log = createWriteStream(logFile)
  const onLine = (line: string): void => void log.write(`${line}\n`)
  print(`log        ${logFile}`)
  const web = startBaton({ verb: 'web', environment, onLine })
  undo.push(() => end(web))
  let worker = startBaton({ verb: 'worker', environment, onLine })
  undo.push(() => end(worker))

  const results: boolean[] = []
  const stage: Stage = {
    client: createWebClient(address, key),
    postgres,
    databaseUrl: url,
    folder,
    server,
    worker: () => worker,
    startWorker: async () => {
      worker = startBaton({ verb: 'worker', environment, onLine })
      await workerUp(stage)
    },
    say: (line) => print(`    ${line}`),
    promise: (text, held) => {
      results.push(held)
      print(`  ${held ? '✓' : '✗ BROKEN:'} ${text}`)
    },
  }
  if (!(await waitUntilReady(address, 30_000))) throw new Error('the web tier did not become ready')
  await workerUp(stage)
  return { stage, results, key, address }
}

async function workerUp(stage: Stage): Promise<void> {
  await until('the worker to come up', 30_000, async () => (await childPids(stage)).length > 0)
}

const demoEnvironment = (given: {
  url: string
  port: number
  key: string
  folder: string
}): Record<string, string> => ({
  DATABASE_URL: given.url,
  PORT: String(given.port),
  HOST: '127.0.0.1',
  BATON_SECRET: randomBytes(32).toString('hex'),
  BATON_API_KEYS: `operator:${given.key}`,
  BODY_STORES: `file:${path.join(given.folder, 'bodies-a')},file:${path.join(given.folder, 'bodies-b')}`,
  JOBS_MODULE: fileURLToPath(new URL('./jobs.ts', import.meta.url)),
  WORKER_PROCESSES: '2',
  // The stand-in for the cloud is on this machine.
  PUSH_ALLOW_PRIVATE: '1',
  FLOOD_INTERVAL_MS: '3000',
  LOG_LEVEL: 'warn',
})

async function end(baton: BatonProcess): Promise<void> {
  baton.signal('SIGTERM')
  await baton.exited
}
