import { randomUUID } from 'node:crypto'
import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import type { Log } from '../../platform/log.ts'
import type { Metrics } from '../../platform/metrics.ts'
import type { Postgres } from '../../platform/postgres/postgres.ts'
import type { Tracing } from '../../platform/tracing.ts'
import type { Alarms } from './alarms.ts'
import { type Claim, type ClaimedSend, claimSends, type FloodLimit } from './claim-rows.ts'
import { createFlights, type Flights } from './flights.ts'
import { markSends, renewLeases } from './mark-rows.ts'
import { createMarker, type Marker } from './marker.ts'
import type { PushPayloads } from './payloads.ts'
import type { Provider } from './provider.ts'
import type { TransportKind } from './transport.ts'

/** Claims what is due, sends it, and writes down what became of it. */
export interface Dispatcher {
  /** Looks at these shards until nothing in them is due. Resolves when it is claimed, not when it is sent. */
  fire(shards: readonly number[]): Promise<void>
  /** Claims nothing any more; resolves when what is on its way has been marked, or after `limitMs`. */
  drain(limitMs: number): Promise<void>
  /** Cloud pushes on their way. */
  readonly inFlight: number
}

export interface DispatcherOptions {
  postgres: Postgres
  providers: ReadonlyMap<TransportKind, Provider>
  payloads: PushPayloads
  alarms: Alarms
  flood: FloodLimit
  clock: Clock
  log: Log
  metrics: Metrics
  /** Undefined: nothing is traced. */
  tracing?: Tracing | undefined
  /** Sends at once in this process; 256 unless said. */
  maxInFlight?: number
}

/** How long a claim holds without being renewed, ms: what a killed process costs its pushes. */
export const leaseMs = 6_000
const renewEveryMs = 2_000
/** A device that somebody else held is looked at again after so many ms, so often; then the sweep has it. */
const againMs = 20
const maxAgain = 10
/** Devices of one claim. */
const maxClaim = 128

export function createDispatcher(options: DispatcherOptions): Dispatcher {
  const { postgres, alarms, clock, log, metrics, flood } = options
  /** Of this process: only who bears it may mark what it claimed. */
  const lease = randomUUID()
  const marker = createMarker({
    write: async (markings) => {
      alarms.arm(await markSends(postgres, lease, markings, flood.intervalMs))
      // The next transport is due at once.
      const onward = markings.filter(({ mark }) => mark.kind === 'gone' || mark.kind === 'rejected')
      if (onward.length > 0) void looker.look(onward.map(({ send }) => send.shard))
    },
    clock,
    log,
  })
  const renew = (sends: ClaimedSend[]): Promise<void> =>
    renewLeases(postgres, lease, sends, leaseMs).catch((error: unknown) =>
      log.warn({ reason: messageOf(error) }, 'leases could not be renewed; others may send the same again'),
    )
  const flights = createFlights({ ...options, marker, renew, renewEveryMs })

  const take = (claim: Claim): void => {
    for (const send of claim.sends) {
      metrics.observe('baton_push_lateness_seconds', {}, Math.max(0, send.lateMs) / 1_000)
      flights.launch(send)
    }
    if (claim.held.length > 0) metrics.count('baton_pushes_flood_held_total', {}, claim.held.length)
    alarms.arm(claim.held)
    // More than one claim takes: a further alarm calls others to help.
    if (claim.full) alarms.arm([{ shard: 0, dueAt: claim.saidAt, saidAt: claim.saidAt }])
  }

  const looker = createLooker({
    room: (draining) => roomFor(flights, marker, options, draining),
    claim: async (shards, maxDevices) => {
      const claim = await claimSends(postgres, { shards, maxDevices, lease, leaseMs, flood })
      take(claim)
      return claim
    },
    onError: (error) =>
      log.warn({ reason: messageOf(error) }, 'due pushes could not be claimed; the sweep tries again'),
  })

  return {
    fire: looker.look,
    drain: async (limitMs) => {
      const looked = looker.stop()
      flights.release()
      await Promise.race([Promise.all([looked, flights.settled()]), clock.sleep(limitMs)])
      flights.stop()
    },
    get inFlight() {
      return flights.size
    },
  }
}

/** Waits until something may be claimed. @returns for how many devices */
async function roomFor(
  flights: Flights,
  marker: Marker,
  { clock, maxInFlight = 256 }: DispatcherOptions,
  stopped: () => boolean,
): Promise<number> {
  // Whatever was sent is marked first: else a Postgres that comes back would have it claimed and sent again.
  while (marker.inTrouble && !stopped()) await clock.sleep(50)
  while (flights.size >= maxInFlight && !stopped()) await flights.landing()
  return Math.min(maxInFlight - flights.size, maxClaim)
}

interface LookerOptions {
  room(stopped: () => boolean): Promise<number>
  claim(shards: number[], maxDevices: number): Promise<Claim>
  onError(error: unknown): void
}

interface Looker {
  look(shards: readonly number[]): Promise<void>
  /** Resolves when nothing is being claimed any more. */
  stop(): Promise<void>
}

/** One claim at a time, for all shards that somebody asked for meanwhile. */
function createLooker({ room, claim, onError }: LookerOptions): Looker {
  const wanted = new Set<number>()
  let running: Promise<void> | undefined
  let stopped = false
  let again = 0

  const claimOnce = async (shards: number[], maxDevices: number): Promise<void> => {
    const { full, skipped } = await claim(shards, maxDevices)
    if (full) {
      for (const shard of shards) wanted.add(shard)
    } else if (skipped > 0 && again < maxAgain) {
      again += 1
      setTimeout(() => void look(shards).catch(() => undefined), againMs * again).unref()
    } else again = 0
  }

  const run = async (): Promise<void> => {
    while (wanted.size > 0 && !stopped) {
      const maxDevices = await room(() => stopped)
      const shards = [...wanted]
      wanted.clear()
      if (!stopped) await claimOnce(shards, maxDevices)
    }
  }

  const look = async (shards: readonly number[]): Promise<void> => {
    if (stopped) return
    for (const shard of shards) wanted.add(shard)
    running ??= run().finally(() => {
      running = undefined
    })
    try {
      await running
    } catch (error) {
      onError(error)
    }
  }

  return {
    look,
    stop: async () => {
      stopped = true
      await running?.catch(() => undefined)
    },
  }
}
