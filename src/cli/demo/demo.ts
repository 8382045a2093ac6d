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
import { createWebClient, type WebClient, waitUntilReady } from '../web-client.ts'
import { badInput } from './scenes/bad-input.ts'
import { gateway } from './scenes/gateway.ts'
import { killedChild } from './scenes/killed-child.ts'
import { killedDatabase } from './scenes/killed-database.ts'
import { pushes } from './scenes/pushes.ts'
import { realFiles } from './scenes/real-files.ts'
import { rolledWorker } from './scenes/rolled-worker.ts'
import { secondSite } from './scenes/second-site.ts'
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
  gateway,
  // Last: what the others have left is what is copied.
  secondSite,
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
  const end = new AbortController()
  try {
    const { stage, results, key, address } = await build(options, undo, end.signal)
    print(`dashboard  ${address}/dashboard`)
    print(`key        ${key}`)
    const played = await Promise.race([
      playAll(stage, print, end.signal).then(() => true),
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
    end.abort()
    for (const step of undo.reverse()) await step().catch((error: unknown) => print(messageOf(error)))
  }
}

async function playAll(stage: Stage, print: (line: string) => void, ended: AbortSignal): Promise<void> {
  for (const scene of scenes) {
    if (ended.aborted) return
    print(`\n${scene.title}`)
    try {
      await scene.play(stage)
    } catch (error) {
      stage.promise(`the scene came to its end: ${messageOf(error)}`, false)
    }
  }
}

async function build(
  options: DemoOptions,
  undo: (() => Promise<unknown>)[],
  ended: AbortSignal,
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
  const start = createStarter({ environment, onLine, undo, ended })
  start('web')
  let worker = start('worker')

  // A scene that is stopped must not keep the web tiers up by its questions.
  const connect = (to: string): WebClient => createWebClient(to, key, ended)
  const results: boolean[] = []
  const stage: Stage = {
    client: connect(address),
    connect,
    key,
    postgres,
    databaseUrl: url,
    folder,
    server,
    worker: () => worker,
    startWorker: async () => {
      worker = start('worker')
      await workerUp(stage)
    },
    start,
    atEnd: (step) => void undo.push(step),
    ...createVoice({ print, ended, results }),
  }
  if (!(await waitUntilReady(address, 30_000))) throw new Error('the web tier did not become ready')
  await workerUp(stage)
  return { stage, results, key, address }
}

interface Voice {
  print(line: string): void
  ended: AbortSignal
  /** What became of each promise is added. */
  results: boolean[]
}

/** Silent once the demo ends: what a scene finds while its processes go is no broken promise. */
const createVoice = ({ print, ended, results }: Voice): Pick<Stage, 'say' | 'promise'> => ({
  say: (line) => {
    if (!ended.aborted) print(`    ${line}`)
  },
  promise: (text, held) => {
    if (ended.aborted) return
    results.push(held)
    print(`  ${held ? '✓' : '✗ BROKEN:'} ${text}`)
  },
})

interface Starter {
  environment: Record<string, string>
  onLine(line: string): void
  undo: (() => Promise<unknown>)[]
  ended: AbortSignal
}

/** Whatever it starts ends with the demo, what was started last first. */
function createStarter({ environment, onLine, undo, ended }: Starter): Stage['start'] {
  return (verb, settings = {}) => {
    // A scene plays on for a moment when somebody has stopped the demo: nobody would end what it starts then.
    if (ended.aborted) throw new Error('the demo has ended')
    const started = startBaton({ verb, environment: { ...environment, ...settings }, onLine })
    undo.push(() => stopBaton(started))
    return started
  }
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
  SITE: 'main',
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

async function stopBaton(baton: BatonProcess): Promise<void> {
  baton.signal('SIGTERM')
  await baton.exited
}
