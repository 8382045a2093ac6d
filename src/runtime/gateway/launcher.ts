import { createServer, get } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import { freePort } from '../../platform/free-port.ts'
import { REVISION_UNUSABLE } from './errors.ts'
import { forward } from './forward.ts'
import { answerHeaders, requestHeaders } from './headers.ts'
import type { Target } from './target.ts'
import { launchProcess, type ProcessExit } from './target-process.ts'

/** Starts processes of targets and finds out whether they can be used. */
export interface Launcher {
  /**
   * Resolves when the target's new process is ready and has passed the smoke request.
   *
   * @param onProcess its pid is known: to be written down
   * @throws REVISION_UNUSABLE when it has not come up, or the signal aborted; nothing of the process is left then
   */
  bringUp(target: Target, options: { onProcess(): void; signal: AbortSignal }): Promise<void>
}

export interface LauncherOptions {
  clock: Clock
  environment: NodeJS.ProcessEnv
  /** Where a target's output goes. */
  fileOf(target: Target): string
  markOf(target: Target): string
  bootTimeoutMs: number
  readyPath: string
  smokePath: string
}

const askEveryMs = 100
const answerLimitMs = 5_000
const shownLines = 15
const smokeId = 'gateway-smoke'
const stopReason = 'the gateway is being stopped'

export function createLauncher(options: LauncherOptions): Launcher {
  const { clock } = options

  const prove = async (target: Target, port: number, signal: AbortSignal): Promise<string | undefined> => {
    const deadline = clock.monotonicMs() + options.bootTimeoutMs
    let last = 'it does not listen'
    while (!signal.aborted) {
      const answer = await ask(port, options.readyPath, signal)
      if (answer.status !== undefined && answer.status >= 200 && answer.status < 300) break
      last = answer.status === undefined ? answer.reason : `${options.readyPath} answered ${answer.status}`
      if (clock.monotonicMs() >= deadline) return `not ready within ${options.bootTimeoutMs} ms: ${last}`
      await clock.sleep(askEveryMs, signal)
    }
    if (signal.aborted) return undefined
    const smoke = await askThroughProxy(target, port, options.smokePath)
    if (smoke.status !== undefined && smoke.status < 400) return undefined
    return `the smoke request ${options.smokePath} ${smoke.status === undefined ? `had no answer: ${smoke.reason}` : `was answered ${smoke.status}`}`
  }

  const attempt = async (
    target: Target,
    { onProcess, signal }: { onProcess(): void; signal: AbortSignal },
  ): Promise<string | undefined> => {
    const port = await freePort()
    const process = await launchProcess({
      spec: target.spec,
      port,
      file: options.fileOf(target),
      mark: options.markOf(target),
      clock,
      environment: options.environment,
    })
    target.process = process
    onProcess()
    const over = new AbortController()
    const ended = process.exited.then((exit: ProcessExit) => `it ended by itself (${exit.how})`)
    const stopped = aborted(AbortSignal.any([signal, over.signal])).then(() => stopReason)
    const proven = prove(target, port, AbortSignal.any([signal, over.signal]))
    const failure = await Promise.race([ended, stopped, proven])
    over.abort()
    if (signal.aborted) return stopReason
    return failure ?? (process.running ? undefined : 'it ended when it was ready')
  }

  return {
    bringUp: async (target, how) => {
      const failure = await attempt(target, how).catch((error: unknown) => messageOf(error))
      if (failure === undefined) {
        target.up = true
        return
      }
      target.process?.signal('SIGKILL')
      await target.process?.exited
      target.process = undefined
      const lines = target.output.lastLines(shownLines)
      throw REVISION_UNUSABLE({
        revision: target.revision,
        reason: failure,
        lines: lines.length > 0 ? ` It printed last:\n${lines.map((line) => `  ${line}`).join('\n')}` : '',
      })
    },
  }
}

const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })

type Answer = { status: number } | { status: undefined; reason: string }

function ask(port: number, path: string, signal?: AbortSignal): Promise<Answer> {
  return new Promise((resolve) => {
    const request = get({
      host: '127.0.0.1',
      port,
      path,
      agent: false,
      timeout: answerLimitMs,
      ...(signal ? { signal } : {}),
    })
    request.on('timeout', () => request.destroy(new Error(`no answer within ${answerLimitMs} ms`)))
    request.on('error', (error) => resolve({ status: undefined, reason: messageOf(error) }))
    request.on('response', (answer) => {
      answer.resume()
      resolve({ status: answer.statusCode ?? 0 })
    })
  })
}

/** A request as a client would send it, through the code that serves clients, to this target alone. */
async function askThroughProxy(target: Target, port: number, path: string): Promise<Answer> {
  const server = createServer((request, response) => {
    const origin = {
      for: '127.0.0.1',
      proto: 'http',
      host: request.headers.host ?? '',
      secure: false,
      trusted: true,
    }
    void forward({
      request,
      response,
      path,
      headers: requestHeaders(request, { origin, requestId: smokeId, cookies: undefined }),
      to: { port, agent: target.agent },
      answerHeaders: (answer) => answerHeaders(answer, smokeId, []),
      onStream: () => () => undefined,
    }).then((outcome) => outcome !== 'over' && response.destroy())
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  try {
    return await ask((server.address() as AddressInfo).port, path)
  } finally {
    server.closeAllConnections()
    server.close()
  }
}
