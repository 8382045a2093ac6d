import { chmodSync, mkdirSync, rmSync, statSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { connect } from 'node:net'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { BatonError, codeOf, messageOf } from '../../core/errors.ts'
import {
  GATEWAY_ALREADY_RUNNING,
  GATEWAY_INPUT_INVALID,
  GATEWAY_PATH_UNKNOWN,
  GATEWAY_SOCKET_UNUSABLE,
} from './errors.ts'
import type { Gateway } from './gateway.ts'
import type { RevisionSpec } from './record.ts'

/**
 * The socket on which operators speak to the gateway, HTTP with JSON: GET /status, /livez, /readyz, /metrics; POST
 * /upgrade, /extend, /end. Whoever may open it may do everything, so nobody but its owner may.
 */
export interface Control {
  /** @throws GATEWAY_ALREADY_RUNNING, GATEWAY_SOCKET_UNUSABLE */
  open(): Promise<void>
  close(): void
}

/** What an upgrade asks for; what is left out is as it is now. */
export interface RevisionRequest {
  revision?: string
  command?: string[]
  /** Absolute. */
  directory?: string
  environment?: Record<string, string>
}

export interface ControlOptions {
  socket: string
  gateway(): Gateway
  /** Completes what was asked for by what is there. */
  complete(request: RevisionRequest): RevisionSpec
}

/** Of a Unix socket's path: 108 on Linux, 104 elsewhere, with an end mark. */
const longestPath = 100
const longestBody = 262_144

export function createControl({ socket, gateway, complete }: ControlOptions): Control {
  const routes: Record<string, (body: unknown) => unknown> = {
    'GET /status': () => gateway().status(),
    'GET /livez': () => ({ status: 'alive' }),
    'GET /readyz': () => gateway().own.readiness(),
    'POST /upgrade': (body) => {
      const request = revisionRequest(body)
      return gateway().upgrade(complete(request), request.revision)
    },
    'POST /extend': (body) => gateway().extend(textOf(body, 'revision'), durationOf(body)),
    'POST /end': (body) => gateway().end(textOf(body, 'revision')),
  }
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    if (`${request.method} ${request.url}` === 'GET /metrics') {
      response.end(await gateway().own.metrics())
      return
    }
    const route = routes[`${request.method} ${request.url}`]
    if (!route) throw GATEWAY_PATH_UNKNOWN({ path: request.url ?? '' })
    const value = await route(request.method === 'POST' ? await readBody(request) : undefined)
    send(response, 200, value)
  }
  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => {
      const known = error instanceof BatonError
      const problem = { code: known ? error.code : 'INTERNAL', detail: messageOf(error) }
      send(response, known ? error.traits.status : 500, problem)
    })
  })
  // An upgrade takes as long as the boot of what it starts.
  server.requestTimeout = 0

  return {
    open: async () => {
      if (Buffer.byteLength(socket) > longestPath) {
        throw GATEWAY_SOCKET_UNUSABLE({ socket, reason: `its path is longer than ${longestPath} bytes` })
      }
      prepareFolder(socket)
      if (await isAnswering(socket)) throw GATEWAY_ALREADY_RUNNING({ socket })
      rmSync(socket, { force: true })
      await listen(server, socket)
    },
    close: () => {
      server.close()
      server.closeAllConnections()
    },
  }
}

/** A setting that names something else by mistake must not cost it: what is in the way is removed by `open`. */
function prepareFolder(socket: string): void {
  try {
    mkdirSync(path.dirname(socket), { recursive: true })
  } catch (error) {
    throw GATEWAY_SOCKET_UNUSABLE({ socket, reason: messageOf(error) }, { cause: error })
  }
  const there = statSync(socket, { throwIfNoEntry: false })
  if (there && !there.isSocket()) {
    throw GATEWAY_SOCKET_UNUSABLE({ socket, reason: 'there is something else in its place' })
  }
}

async function listen(server: ReturnType<typeof createServer>, socket: string): Promise<void> {
  // It is made with the mode that this leaves; to change that afterwards would leave a moment in between.
  const before = process.umask(0o177)
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(socket, () => resolve())
    })
    chmodSync(socket, 0o600)
  } catch (error) {
    throw GATEWAY_SOCKET_UNUSABLE({ socket, reason: messageOf(error) }, { cause: error })
  } finally {
    process.umask(before)
  }
}

const isAnswering = (socket: string): Promise<boolean> =>
  new Promise((resolve, reject) => {
    const probe = connect(socket)
    probe.once('connect', () => {
      probe.destroy()
      resolve(true)
    })
    probe.once('error', (error) => {
      const gone = ['ENOENT', 'ECONNREFUSED'].includes(codeOf(error) ?? '')
      if (gone) resolve(false)
      else reject(GATEWAY_SOCKET_UNUSABLE({ socket, reason: messageOf(error) }, { cause: error }))
    })
  })

async function readBody(request: IncomingMessage): Promise<unknown> {
  if (Number(request.headers['content-length'] ?? 0) > longestBody) throw invalid('the request is too large')
  try {
    return JSON.parse(await text(request))
  } catch {
    throw invalid('the request is not JSON')
  }
}

const invalid = (reason: string): BatonError => GATEWAY_INPUT_INVALID({ reason })

const fieldOf = (body: unknown, name: string): unknown =>
  typeof body === 'object' && body !== null ? (body as Record<string, unknown>)[name] : undefined

function textOf(body: unknown, name: string): string {
  const value = fieldOf(body, name)
  if (typeof value !== 'string' || value === '') throw invalid(`${name} must be a text`)
  return value
}

const longestExtensionMs = 30 * 86_400_000

function durationOf(body: unknown): number {
  const ms = fieldOf(body, 'ms')
  if (typeof ms !== 'number' || !Number.isInteger(ms) || ms < 1 || ms > longestExtensionMs) {
    throw invalid(`ms must be a whole number from 1 to ${longestExtensionMs}`)
  }
  return ms
}

export const revisionName = /^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$/

function revisionRequest(body: unknown): RevisionRequest {
  const request: RevisionRequest = {}
  const revision = fieldOf(body, 'revision')
  if (revision !== undefined) request.revision = revisionOf(revision)
  const directory = fieldOf(body, 'directory')
  if (directory !== undefined) {
    if (typeof directory !== 'string' || !path.isAbsolute(directory))
      throw invalid('directory must be absolute')
    request.directory = directory
  }
  const command = fieldOf(body, 'command')
  if (command !== undefined) {
    if (
      !Array.isArray(command) ||
      command.length === 0 ||
      !command.every((each) => typeof each === 'string')
    ) {
      throw invalid('command must be a list of texts')
    }
    request.command = command
  }
  const environment = fieldOf(body, 'environment')
  if (environment !== undefined) request.environment = environmentOf(environment)
  return request
}

function revisionOf(value: unknown): string {
  if (typeof value === 'string' && revisionName.test(value)) return value
  throw invalid(
    'a revision is named by up to 64 letters, digits and . _ + -, and begins with a letter or digit',
  )
}

function environmentOf(value: unknown): Record<string, string> {
  const isObject = typeof value === 'object' && value !== null && !Array.isArray(value)
  const entries = isObject ? Object.entries(value) : []
  if (!isObject || !entries.every(([name, each]) => name !== '' && typeof each === 'string')) {
    throw invalid('environment must have texts as its values')
  }
  return Object.fromEntries(entries) as Record<string, string>
}

function send(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json; charset=utf-8' }).end(JSON.stringify(value))
}
