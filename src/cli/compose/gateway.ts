import { existsSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { createSystemClock } from '../../core/clock.ts'
import { type Config, childEnvironment } from '../../platform/config/config.ts'
import { createLog, type Log } from '../../platform/log.ts'
import { createMetrics } from '../../platform/metrics.ts'
import { createControl, type RevisionRequest } from '../../runtime/gateway/control.ts'
import { createGateway, type Gateway, type GatewayFiles } from '../../runtime/gateway/gateway.ts'
import type { RevisionSpec } from '../../runtime/gateway/record.ts'
import { HEADERS_TOO_LARGE, REQUEST_MALFORMED, REQUEST_TIMED_OUT } from '../../runtime/web/errors.ts'
import { portUnavailable, probePort } from '../../runtime/web/port.ts'
import { problemHeaders, problemOf, problemType } from '../../runtime/web/problem.ts'
import { createRequestIds } from '../../runtime/web/request-origin.ts'
import { readDevelopmentKeys } from '../development-keys.ts'
import { type Database, openDatabase } from './database.ts'

export interface ComposedGateway {
  start(): Promise<{ url: string }>
  /** @returns false when something had to be cut or killed */
  stop(): Promise<boolean>
  /** Kills every target, whatever is under way. */
  kill(): void
  status: Gateway['status']
  log: Log
}

const root = fileURLToPath(new URL('../../..', import.meta.url))

/**
 * The gateway, its control socket open.
 *
 * @param first what is started when no target lives that could be taken over
 * @throws PORT_UNAVAILABLE, GATEWAY_ALREADY_RUNNING, GATEWAY_SOCKET_UNUSABLE; then nothing is left open
 */
export async function composeGateway(config: Config, first: RevisionRequest): Promise<ComposedGateway> {
  const log = createLog({ level: config.logLevel, process: 'gateway' })
  const port = await probePort(config)
  const files = filesOf(config.gatewaySocket)
  // What is not set is kept over restarts here, as for `dev`: with another secret every session would move.
  const secret = config.secret ?? (await readDevelopmentKeys()).secret
  const gateway = { is: undefined as Gateway | undefined }
  const running = (): Gateway => gateway.is as Gateway
  const complete = (request: RevisionRequest): RevisionSpec => completeSpec(request, gateway.is?.spec)
  const control = createControl({ socket: files.socket, gateway: running, complete })
  const spec = complete(first)
  const database = await openTargetsDatabase(config, spec, log)
  gateway.is = assemble(config, { files, secret, port, database, log })
  try {
    await control.open()
  } catch (error) {
    await database?.close()
    throw error
  }
  const close = async (): Promise<void> => {
    control.close()
    await database?.close()
  }
  const stop = async (): Promise<boolean> => {
    const clean = await running().stop()
    await close()
    return clean
  }
  const start = async (): Promise<{ url: string }> => {
    try {
      return await running().start({
        spec,
        ...(first.revision === undefined ? {} : { revision: first.revision }),
      })
    } catch (error) {
      await close()
      throw isListenError(error) ? portUnavailable({ host: config.host ?? '0.0.0.0', port }, error) : error
    }
  }
  return { start, stop, kill: () => running().kill(), status: () => running().status(), log }
}

const isListenError = (error: unknown): boolean =>
  error instanceof Error && (error as NodeJS.ErrnoException).syscall === 'listen'

interface Ground {
  files: GatewayFiles
  secret: string
  port: number
  database: Database | undefined
  log: Log
}

function assemble(config: Config, { files, secret, port, database, log }: Ground): Gateway {
  const clock = createSystemClock()
  return createGateway({
    host: config.host ?? '0.0.0.0',
    port,
    secret,
    pin: config.gatewayPin,
    idleMs: config.gatewayIdleMs,
    limits: {
      maxAgeMs: config.gatewayMaxAgeMs,
      detachedMax: config.gatewayDetachedMax,
      streamCloseMs: config.gatewayStreamCloseMs,
      drainMs: config.gatewayDrainMs,
    },
    bootTimeoutMs: config.bootTimeoutMs,
    shutdownMs: config.shutdownMs,
    readyPath: config.gatewayReadyPath,
    smokePath: config.gatewaySmokePath,
    metricsOpen: config.metricsOpen,
    files,
    environment: childEnvironment({
      BATON_SECRET: secret,
      ...(database ? { DATABASE_URL: database.url } : {}),
    }),
    print: (text) => void process.stdout.write(text),
    requestId: createRequestIds(clock),
    format: { type: problemType, body: problemOf, headers: problemHeaders },
    faults: { malformed: REQUEST_MALFORMED, headersTooLarge: HEADERS_TOO_LARGE, timedOut: REQUEST_TIMED_OUT },
    pid: process.pid,
    clock,
    log,
    metrics: createMetrics(),
  })
}

/** Each gateway has its own beside its socket. */
function filesOf(setting: string): GatewayFiles {
  const socket = path.resolve(setting)
  const base = socket.replace(/\.sock$/, '')
  return { socket, state: `${base}.json`, outputOf: (id) => `${base}-${id}.log` }
}

/** What is left out is as the current target has it; for the first, `baton web` of this directory. */
function completeSpec(request: RevisionRequest, current: RevisionSpec | undefined): RevisionSpec {
  const directory = request.directory ?? current?.directory ?? process.cwd()
  const inherited = current && !isDefaultCommand(current) ? current.command : defaultCommand(directory)
  return { command: request.command ?? inherited, directory, environment: request.environment ?? {} }
}

/** `baton web` of the directory, by the Node that belongs to it; of this one when there is no Baton there. */
function defaultCommand(directory: string): string[] {
  const own = path.join(directory, 'scripts/baton')
  return [existsSync(own) ? own : path.join(root, 'scripts/baton'), 'web']
}

const isDefaultCommand = ({ command, directory }: RevisionSpec): boolean =>
  JSON.stringify(command) === JSON.stringify(defaultCommand(directory))

/** Two revisions of `baton web` must not each open an embedded Postgres of their own. */
async function openTargetsDatabase(
  config: Config,
  spec: RevisionSpec,
  log: Log,
): Promise<Database | undefined> {
  return config.databaseUrl || !isDefaultCommand(spec) ? undefined : openDatabase(config, log)
}
