import { type Clock, toIso } from '../../core/clock.ts'
import { residentBytes } from './process-identity.ts'
import type { TargetState } from './record.ts'
import { reasonToKeep, type Target } from './target.ts'

/** A gateway as `baton gateway status --json` shows it. */
export interface GatewayStatus {
  pid: number
  url: string
  startedAt: string
  /** The revision that is just being started by an upgrade. */
  upgradingTo?: string
  targets: TargetView[]
}

export interface TargetView {
  revision: string
  id: string
  state: TargetState
  /** It takes requests. */
  up: boolean
  pid: number | null
  port: number | null
  startedAt: string
  ageMs: number
  detachedForMs: number | null
  /** When it is too old to stay. */
  tooOldAt: string | null
  /** Seen within the idle time, as far as is known. */
  sessions: number
  streams: number
  inFlight: number
  /** Processes after the first. */
  restarts: number
  rssBytes: number | null
  /** Why it is still here. */
  kept: string
  command: string[]
  directory: string
}

export function viewOf(target: Target, clock: Clock): TargetView {
  const { revision, id, state, up, createdAt, detachedAt, tooOldAt, lease, restarts, spec } = target
  const process = target.process?.record
  return {
    revision,
    id,
    state,
    up,
    pid: process?.pid ?? null,
    port: process?.port ?? null,
    startedAt: toIso(createdAt),
    ageMs: Math.max(0, clock.now() - createdAt),
    detachedForMs: detachedAt === undefined ? null : Math.max(0, clock.now() - detachedAt),
    tooOldAt: tooOldAt === undefined ? null : toIso(tooOldAt),
    sessions: lease.sessions,
    streams: lease.streams.length,
    inFlight: lease.inFlight,
    restarts,
    rssBytes: (process && residentBytes(process.pid)) ?? null,
    kept: reasonToKeep(target, clock),
    command: spec.command,
    directory: spec.directory,
  }
}

/** Where one can be reached that listens there. */
export function urlOf(host: string, port: number): string {
  const name = { '0.0.0.0': '127.0.0.1', '::': '::1' }[host] ?? host
  return `http://${name.includes(':') ? `[${name}]` : name}:${port}`
}
