import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createGatewayClient } from '../../src/cli/compose/gateway-client.ts'
import { processesWith } from '../../src/runtime/gateway/process-identity.ts'
import { targetVariable } from '../../src/runtime/gateway/record.ts'
import type { GatewayStatus, TargetView } from '../../src/runtime/gateway/status.ts'
import { type Ran, runBaton } from '../cli/run-baton.ts'
import { atEndOfTest, type BatonProcess, freePort, projectRoot, spawnBaton } from './processes.ts'

export const standIn = [process.execPath, path.join(projectRoot, 'test/support/gateway-target.ts')]

/** A gateway with a folder of its own, in front of the stand-in target unless told otherwise. */
export interface GatewaySite {
  readonly url: string
  readonly port: number
  readonly folder: string
  /** The gateway that runs now. */
  readonly process: BatonProcess
  /** Starts it (again). Resolves when it takes requests. */
  start(args?: string[]): Promise<BatonProcess>
  /** `baton gateway …` */
  run(...args: string[]): Promise<Ran>
  /** To the same command, which is told that it is this revision. @throws what the gateway says */
  upgrade(revision: string, more?: Record<string, string>): Promise<void>
  status(): Promise<GatewayStatus>
  target(revision: string): Promise<TargetView | undefined>
  /** Pids of all processes that targets of this gateway have. */
  targetPids(): number[]
  close(): Promise<void>
}

/** Limits that a test does not wait for, unless it sets them. */
const calm = { GATEWAY_IDLE_MS: '600000', GATEWAY_STREAM_CLOSE_MS: '200', SHUTDOWN_MS: '8000' }

/** Within a test it ends with it; outside of one whoever opens it has to call `close`. */
export async function openGateway(environment: Record<string, string> = {}): Promise<GatewaySite> {
  const folder = await mkdtemp(path.join(tmpdir(), 'baton-gateway-'))
  const socket = path.join(folder, 'g.sock')
  const port = await freePort()
  const env = {
    PORT: String(port),
    HOST: '127.0.0.1',
    GATEWAY_SOCKET: socket,
    BATON_SECRET: 'a-secret-of-sixteen-characters',
    REVISION: 'one',
    ...calm,
    ...environment,
  }
  let running: BatonProcess | undefined
  const targetPids = (): number[] =>
    processesWith(targetVariable)
      .filter(({ value }) => value.endsWith(`@${socket}`))
      .map(({ pid }) => pid)

  const run = (...args: string[]): Promise<Ran> => runBaton(['gateway', ...args], { env })
  // Not by the command, whose start takes longer than its question.
  const client = createGatewayClient(socket)
  const close = async (): Promise<void> => {
    await running?.kill()
    for (const pid of targetPids()) process.kill(pid, 'SIGKILL')
    await rm(folder, { recursive: true, force: true })
  }
  atEndOfTest(close)
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    folder,
    get process() {
      if (!running) throw new Error('the gateway was not started')
      return running
    },
    start: async (args = ['--revision', 'one', '--', ...standIn]) => {
      running = spawnBaton(['gateway', ...args], env)
      await running.waitForLine(/gateway takes requests/)
      return running
    },
    run,
    upgrade: async (revision, more = {}) =>
      void (await client.upgrade({ revision, environment: { REVISION: revision, ...more } })),
    status: client.status,
    target: async (revision) =>
      (await client.status()).targets.find((target) => target.revision === revision),
    targetPids,
    close,
  }
}

/** A browser: it keeps its cookies. */
export interface Browser {
  /** What the last answer said of a move. */
  readonly movedFrom: string | null
  cookie: string
  get(path: string): Promise<Response>
  /** The revision that answers. */
  revision(): Promise<string>
}

export function openBrowser(url: string): Browser {
  const browser: Browser & { movedFrom: string | null } = {
    movedFrom: null,
    cookie: '',
    get: async (at) => {
      const answer = await fetch(url + at, {
        // It would be followed without the cookie that came with it.
        redirect: 'manual',
        headers: { accept: 'text/html', ...(browser.cookie ? { cookie: browser.cookie } : {}) },
      })
      browser.movedFrom = answer.headers.get('x-session-moved')
      for (const set of answer.headers.getSetCookie()) {
        browser.cookie = set.includes('Max-Age=0') ? '' : (set.split(';')[0] ?? '')
      }
      return answer
    },
    revision: async () => {
      const answer = await browser.get('/')
      if (answer.status !== 200) throw new Error(`answered ${answer.status}: ${await answer.text()}`)
      return ((await answer.json()) as { revision: string }).revision
    },
  }
  return browser
}
