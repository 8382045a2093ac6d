import { backoffMs } from '../../core/backoff.ts'
import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import type { Log } from '../../platform/log.ts'
import type { Metrics } from '../../platform/metrics.ts'
import type { Tracing } from '../../platform/tracing.ts'
import type { ClaimedSend } from './claim-rows.ts'
import type { Marker } from './marker.ts'
import type { PushPayloads } from './payloads.ts'
import type { CloudMessage, Provider, SendResult } from './provider.ts'
import type { TransportKind } from './transport.ts'
import { markOf } from './verdict.ts'

/** The cloud pushes that are on their way: asked of their providers, then marked, their leases kept meanwhile. */
export interface Flights {
  launch(send: ClaimedSend): void
  readonly size: number
  /** Resolves at the next landing. */
  landing(): Promise<void>
  /** Lets everybody go on who waits for a landing. */
  release(): void
  /** Resolves when all have landed. */
  settled(): Promise<void>
  stop(): void
}

export interface FlightsOptions {
  providers: ReadonlyMap<TransportKind, Provider>
  payloads: PushPayloads
  marker: Marker
  renew(sends: ClaimedSend[]): Promise<void>
  renewEveryMs: number
  clock: Clock
  log: Log
  metrics: Metrics
  tracing?: Tracing | undefined
}

interface Flight {
  send: ClaimedSend
  renewedAt: number
  landed: Promise<void>
}

export function createFlights(options: FlightsOptions): Flights {
  const { clock, log } = options
  const flights = new Map<string, Flight>()
  let waiting: (() => void)[] = []
  const release = (): void => {
    for (const each of waiting.splice(0)) each()
  }
  const renewing = keepLeases(flights, options)

  return {
    launch: (send) => {
      // A lease that could not be renewed in time comes back to its own holder: it is on its way already.
      if (flights.has(send.sendId)) return
      const landed = fly(send, options)
        .catch((error: unknown) =>
          log.error({ sendId: send.sendId, reason: messageOf(error) }, 'a send failed'),
        )
        .finally(() => {
          flights.delete(send.sendId)
          release()
        })
      flights.set(send.sendId, { send, renewedAt: clock.monotonicMs(), landed })
    },
    get size() {
      return flights.size
    },
    landing: () =>
      new Promise((resolve) => {
        waiting = [...waiting, resolve]
      }),
    release,
    settled: async () => void (await Promise.all([...flights.values()].map(({ landed }) => landed))),
    stop: () => clearInterval(renewing),
  }
}

async function fly(send: ClaimedSend, options: FlightsOptions): Promise<void> {
  const { providers, payloads, marker, clock, metrics, tracing } = options
  const startedAt = clock.monotonicMs()
  const { kind } = send.transport
  const attributes = { 'baton.push.id': send.push.id, 'baton.push.send': send.sendId }
  const span = tracing?.begin(`push ${kind}`, { kind: 'client', attributes })
  const result = await askProvider(providers.get(kind), send, payloads)
  const reason = 'reason' in result ? result.reason : undefined
  span?.end({ 'baton.push.result': result.kind }, reason)
  metrics.count('baton_cloud_pushes_total', { provider: kind, result: result.kind })
  metrics.observe('baton_cloud_push_seconds', { provider: kind }, (clock.monotonicMs() - startedAt) / 1_000)
  await marker.mark(send, markOf(send, result, backoffMs))
}

async function askProvider(
  provider: Provider | undefined,
  send: ClaimedSend,
  payloads: PushPayloads,
): Promise<SendResult> {
  const { transport } = send
  if (!provider) return { kind: 'rejected', reason: `no provider for ${transport.kind} is configured` }
  const { sendId: id, device, collapse, count, ttlMs } = send
  const push = await filled(send.push, provider.maxBytes, payloads)
  try {
    return await provider.send(transport, { id, device, collapse, count, ttlMs, push })
  } catch (error) {
    return { kind: 'retry', reason: `unexpected: ${messageOf(error)}` }
  }
}

/** A push goes out on time without a payload that cannot be read now: the listen that it causes gets it. */
async function filled(
  push: ClaimedSend['push'],
  maxBytes: number,
  payloads: PushPayloads,
): Promise<CloudMessage['push']> {
  const { payload, ...rest } = push
  if (payload === undefined) return push
  if (payloads.sizeOf(payload) > maxBytes) return { ...rest, truncated: true }
  try {
    return { ...rest, payload: await payloads.redeem(payload) }
  } catch {
    return { ...rest, truncated: true }
  }
}

function keepLeases(flights: ReadonlyMap<string, Flight>, options: FlightsOptions): NodeJS.Timeout {
  const { clock, renewEveryMs, renew } = options
  const timer = setInterval(() => {
    const now = clock.monotonicMs()
    const due = [...flights.values()].filter(({ renewedAt }) => now - renewedAt >= renewEveryMs)
    for (const each of due) each.renewedAt = now
    if (due.length > 0) void renew(due.map(({ send }) => send))
  }, renewEveryMs / 2)
  timer.unref()
  return timer
}
