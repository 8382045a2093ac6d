import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Metrics } from '../../platform/metrics.ts'
import { GATEWAY_PATH_UNKNOWN } from './errors.ts'
import type { Problems } from './problems.ts'
import type { Roster } from './roster.ts'

/**
 * What the gateway answers by itself: whatever the application calls `/livez` is the application's, and the gateway's own
 * health must not be hidden by it.
 */
export interface OwnPaths {
  isOwn(request: IncomingMessage): boolean
  answer(request: IncomingMessage, response: ServerResponse, problems: Problems): Promise<void>
  /** Prometheus' text format. */
  metrics(): Promise<string>
  /** Whether a current target takes requests, and the gateway is not being stopped. */
  readiness(): { ready: boolean; checks: { process: string; target: string } }
}

export interface OwnPathsOptions {
  metrics: Metrics
  roster: Roster
  /** Whether everybody may read the metrics; else they are on the control socket alone. */
  metricsOpen: boolean
  isReady(): boolean
}

const prefix = '/.gateway/'

export function createOwnPaths({ metrics, roster, metricsOpen, isReady }: OwnPathsOptions): OwnPaths {
  const readiness: OwnPaths['readiness'] = () => {
    const up = roster.current?.up === true
    return {
      ready: up && isReady(),
      checks: { process: isReady() ? 'ok' : 'stopping', target: up ? 'ok' : 'being started' },
    }
  }
  const measure = async (): Promise<string> => {
    for (const state of ['current', 'detached', 'draining'] as const) {
      const targets = roster.targets.filter((target) => target.state === state)
      const sum = (of: (target: (typeof targets)[number]) => number): number =>
        targets.reduce((total, target) => total + of(target), 0)
      metrics.set('baton_gateway_targets', { state }, targets.length)
      metrics.set(
        'baton_gateway_sessions',
        { state },
        sum(({ lease }) => lease.sessions),
      )
      metrics.set(
        'baton_gateway_streams',
        { state },
        sum(({ lease }) => lease.streams.length),
      )
      metrics.set(
        'baton_gateway_requests',
        { state },
        sum(({ lease }) => lease.inFlight),
      )
    }
    return metrics.text()
  }

  return {
    isOwn: ({ url = '' }) => url.startsWith(prefix),
    answer: async ({ url = '' }, response, problems) => {
      const path = url.split('?', 1)[0] ?? ''
      response.setHeader('cache-control', 'no-store')
      if (path === `${prefix}livez`) return json(response, 200, { status: 'alive' })
      if (path === `${prefix}readyz`) {
        const answer = readiness()
        return json(response, answer.ready ? 200 : 503, answer)
      }
      if (path === `${prefix}metrics` && metricsOpen) {
        response.setHeader('content-type', metrics.contentType)
        response.end(await measure())
        return
      }
      problems.answer(response, GATEWAY_PATH_UNKNOWN({ path: path.slice(0, 200) }), 'gateway')
    },
    metrics: measure,
    readiness,
  }
}

function json(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json; charset=utf-8' }).end(JSON.stringify(value))
}
