import { request as open } from 'node:http'
import path from 'node:path'
import { json } from 'node:stream/consumers'
import { BatonError, codeOf, messageOf } from '../../core/errors.ts'
import type { RevisionRequest } from '../../runtime/gateway/control.ts'
import { GATEWAY_ANSWER_LOST, GATEWAY_NOT_RUNNING } from '../../runtime/gateway/errors.ts'
import type { GatewayStatus, TargetView } from '../../runtime/gateway/status.ts'

/** A gateway that runs, by its control socket. Every call throws GATEWAY_NOT_RUNNING, GATEWAY_ANSWER_LOST, or what it says. */
export interface GatewayClient {
  status(): Promise<GatewayStatus>
  upgrade(request: RevisionRequest): Promise<TargetView>
  extend(revision: string, ms: number): Promise<TargetView>
  end(revision: string): Promise<TargetView>
}

export function createGatewayClient(setting: string): GatewayClient {
  const socket = path.resolve(setting)
  const ask = <T>(method: string, route: string, body?: unknown): Promise<T> =>
    new Promise((resolve, reject) => {
      let reached = false
      const request = open({ socketPath: socket, method, path: route, agent: false })
      request.on('socket', (link) => link.once('connect', () => (reached = true)))
      request.on('error', (error) => reject(unreachable(socket, reached, error)))
      request.on('response', (answer) => {
        json(answer).then(
          (value) => {
            if (answer.statusCode === 200) resolve(value as T)
            else reject(errorOf(answer.statusCode ?? 500, value as { code: string; detail: string }))
          },
          (error: unknown) => reject(unreachable(socket, true, error)),
        )
      })
      request.end(body === undefined ? undefined : JSON.stringify(body))
    })
  return {
    status: () => ask('GET', '/status'),
    upgrade: (request) => ask('POST', '/upgrade', request),
    extend: (revision, ms) => ask('POST', '/extend', { revision, ms }),
    end: (revision) => ask('POST', '/end', { revision }),
  }
}

/** As the gateway said it. */
const errorOf = (status: number, { code, detail }: { code: string; detail: string }): BatonError =>
  new BatonError(code, detail, { status, retry: 'never', report: false })

const reasons: Record<string, string> = {
  ENOENT: 'there is no such socket',
  ECONNREFUSED: 'nobody listens there any more',
  EACCES: 'it belongs to another user',
}

function unreachable(socket: string, reached: boolean, error: unknown): BatonError {
  const reason = reasons[codeOf(error) ?? ''] ?? messageOf(error)
  return (reached ? GATEWAY_ANSWER_LOST : GATEWAY_NOT_RUNNING)({ socket, reason }, { cause: error })
}
