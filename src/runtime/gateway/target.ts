import { Agent } from 'node:http'
import type { Clock } from '../../core/clock.ts'
import { createLease, type Lease } from './lease.ts'
import type { TargetOutput } from './output.ts'
import type { RevisionSpec, TargetRecord, TargetState } from './record.ts'
import type { TargetProcess } from './target-process.ts'

/** One revision that was started. docs/protocols/gateway.md has its states. */
export interface Target {
  readonly id: string
  readonly revision: string
  readonly spec: RevisionSpec
  /** Epoch ms. */
  readonly createdAt: number
  readonly lease: Lease
  /** Connections to it that are kept. */
  readonly agent: Agent
  readonly output: TargetOutput
  state: TargetState
  /** Undefined: there is none just now. */
  process: TargetProcess | undefined
  /** It was found ready and has not died since. */
  up: boolean
  /** Processes after the first. */
  restarts: number
  /** Epoch ms. */
  detachedAt: number | undefined
  /** Epoch ms, and the same on the monotonic clock, by which it is judged. */
  tooOldAt: number | undefined
  tooOldMs: number | undefined
}

export interface TargetOptions {
  record: TargetRecord
  clock: Clock
  idleMs: number
  output: TargetOutput
}

/**
 * Below the 5 s after which a Node server closes an idle connection: a request that is sent into one that is just being
 * closed would fail.
 */
const idleConnectionMs = 4_000

export function createTarget({ record, clock, idleMs, output }: TargetOptions): Target {
  const { id, revision, spec, state, createdAt, detachedAt, tooOldAt } = record
  return {
    id,
    revision,
    spec,
    createdAt,
    state,
    output,
    lease: createLease({ clock, idleMs }),
    agent: new Agent({ keepAlive: true, maxFreeSockets: 256, scheduling: 'lifo', timeout: idleConnectionMs }),
    process: undefined,
    up: false,
    restarts: 0,
    detachedAt,
    tooOldAt,
    tooOldMs: tooOldAt === undefined ? undefined : clock.monotonicMs() + (tooOldAt - clock.now()),
  }
}

export function recordOf(target: Target): TargetRecord {
  const { id, revision, spec, state, createdAt, detachedAt, tooOldAt, process } = target
  return {
    id,
    revision,
    spec,
    state,
    createdAt,
    ...(detachedAt === undefined ? {} : { detachedAt }),
    ...(tooOldAt === undefined ? {} : { tooOldAt }),
    ...(process ? { process: process.record } : {}),
  }
}

/** Why a target is kept, in words for people. */
export function reasonToKeep(target: Target, clock: Clock): string {
  if (target.state === 'current') return target.up ? 'takes new sessions' : 'is being restarted'
  if (target.state === 'starting') return 'is being started'
  if (target.state === 'draining') return `ends; under way: ${heldBy(target.lease) ?? 'nothing'}`
  const { unknownUntilMs } = target.lease
  const held = heldBy(target.lease)
  if (unknownUntilMs === undefined) return held ?? 'nothing: it drains in a moment'
  const seconds = Math.ceil((unknownUntilMs - clock.monotonicMs()) / 1_000)
  return `${held ? `${held}; ` : ''}who else is here is not known for ${seconds} s more`
}

function heldBy({ sessions, streams, inFlight }: Lease): string | undefined {
  const counts = [
    [sessions, 'session'],
    [streams.length, 'stream'],
    [inFlight, 'request'],
  ] as const
  const parts = counts
    .filter(([count]) => count > 0)
    .map(([count, word]) => `${count} ${word}${count === 1 ? '' : 's'}`)
  return parts.length > 0 ? parts.join(', ') : undefined
}
