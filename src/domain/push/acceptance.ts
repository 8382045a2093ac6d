import { createBatcher } from '../../core/batcher.ts'
import type { Clock } from '../../core/clock.ts'
import type { Metrics } from '../../platform/metrics.ts'
import type { Client, Postgres } from '../../platform/postgres/postgres.ts'
import { type AcceptedRows, insertPushes } from './accept-rows.ts'
import type { Alarms } from './alarms.ts'
import { DEVICE_NOT_FOUND } from './errors.ts'
import type { PushPayloads } from './payloads.ts'
import type { AcceptedPush, NewPush } from './push.ts'
import type { Wakes } from './wakes.ts'

export interface Acceptance {
  /**
   * Takes the pushes of one request, all or none. They are committed when it resolves.
   * @throws DEVICE_NOT_FOUND with a fault for each device that does not exist, PUSH_PAYLOAD_UNAVAILABLE
   */
  accept(pushes: NewPush[]): Promise<AcceptedPush[]>
  /**
   * The first step of acceptIn: large payloads go to their stores, which may take seconds. A transaction would hold a
   * connection meanwhile, and ten of them all there are.
   * @throws PUSH_PAYLOAD_UNAVAILABLE
   */
  claim(pushes: NewPush[]): Promise<ClaimedPushes>
  /** The same within a transaction of the caller's. `follow` is to be called after its commit: it wakes and arms. */
  acceptIn(client: Client, claimed: ClaimedPushes): Promise<{ accepted: AcceptedPush[]; follow(): void }>
  /** Pushes that were asked for and are not committed yet. */
  readonly pending: number
  /** Resolves when nothing is under way, wakes and alarms included. */
  idle(): Promise<void>
}

/** Pushes whose payloads are as they stand in rows. */
export interface ClaimedPushes {
  readonly claimed: NewPush[]
}

export interface AcceptanceOptions {
  postgres: Postgres
  wakes: Wakes
  alarms: Alarms
  payloads: PushPayloads
  clock: Clock
  metrics: Metrics
}

/** Most pushes of one statement. */
const maxBatch = 1_000

export function createAcceptance(options: AcceptanceOptions): Acceptance {
  const { postgres, wakes, alarms, payloads, clock, metrics } = options
  const { follow, idle } = createFollowing(wakes, alarms)
  let pending = 0

  const run = async (requests: NewPush[][]): Promise<(AcceptedPush[] | Error)[]> => {
    const pushes = requests.flat()
    const owners = requests.flatMap((request, index) => request.map(() => index))
    const startedAt = clock.monotonicMs()
    const rows = await insertPushes(postgres, pushes, owners)
    follow(rows, clock.monotonicMs() - startedAt)
    return answersOf(requests, rows)
  }

  const batcher = createBatcher<NewPush[], AcceptedPush[] | Error>({
    maxItems: maxBatch,
    concurrency: 2,
    run: async (requests) => {
      const results: (AcceptedPush[] | Error)[] = []
      for (const part of partsOf(requests, maxBatch)) results.push(...(await run(part)))
      return results
    },
  })

  const count = (pushes: NewPush[]): void => {
    for (const push of pushes) {
      metrics.count('baton_pushes_accepted_total', { priority: push.priority ? 'priority' : 'normal' })
    }
  }

  return {
    claim: async (pushes) => ({ claimed: await payloads.claim(pushes) }),
    acceptIn: async (client, { claimed: pushes }) => {
      const startedAt = clock.monotonicMs()
      const rows = await insertPushes(client, pushes, Array<number>(pushes.length).fill(0))
      const [accepted] = answersOf([pushes], rows)
      if (accepted instanceof Error) throw accepted
      const afterwards = (): void => {
        follow(rows, clock.monotonicMs() - startedAt)
        count(pushes)
      }
      return { accepted: accepted ?? [], follow: afterwards }
    },
    accept: async (pushes) => {
      pending += pushes.length
      try {
        const answer = await batcher.add(await payloads.claim(pushes))
        if (answer instanceof Error) throw answer
        count(pushes)
        return answer
      } finally {
        pending -= pushes.length
      }
    },
    get pending() {
      return pending
    },
    idle: async () => {
      await batcher.idle()
      await idle()
    },
  }
}

interface Following {
  follow(rows: AcceptedRows, elapsedMs: number): void
  idle(): Promise<void>
}

/**
 * Wakes and alarms after a commit. The answer does not wait for them: what is lost here is found by the listen's own
 * look and by the sweep.
 */
function createFollowing(wakes: Wakes, alarms: Alarms): Following {
  const under = new Set<Promise<void>>()
  return {
    follow: (rows, elapsedMs) => {
      alarms.arm(rows.due.map((point) => ({ ...point, saidAt: point.saidAt + elapsedMs })))
      for (const [node, devices] of rows.listening) {
        const sent = wakes.send(node, { kind: 'wake', devices })
        under.add(sent)
        void sent.finally(() => under.delete(sent))
      }
    },
    idle: async () => {
      await Promise.all([...under, alarms.idle()])
    },
  }
}

/** Whole requests, together at most `limit` pushes, and one at the least. */
function partsOf(requests: NewPush[][], limit: number): NewPush[][][] {
  const parts: NewPush[][][] = []
  let size = limit
  for (const request of requests) {
    if (size + request.length > limit) {
      parts.push([])
      size = 0
    }
    parts.at(-1)?.push(request)
    size += request.length
  }
  return parts
}

function answersOf(requests: NewPush[][], rows: AcceptedRows): (AcceptedPush[] | Error)[] {
  let place = 0
  return requests.map((request, index) => {
    const first = place
    place += request.length
    const unknown = rows.unknown.get(index)
    if (unknown) return unknownDevices(request, unknown)
    return request.map(({ id, payloadCopies }, offset) => ({
      id,
      devices: rows.devices.get(first + offset) ?? 0,
      ...(payloadCopies === undefined ? {} : { payloadCopies }),
    }))
  })
}

function unknownDevices(request: NewPush[], unknown: string[]): Error {
  const faults = request.flatMap(({ to }, index) =>
    'device' in to && unknown.includes(to.device)
      ? [{ path: request.length === 1 ? '/to/device' : `/${index}/to/device`, message: 'is not registered' }]
      : [],
  )
  return DEVICE_NOT_FOUND({ device: unknown[0] ?? '' }, { faults })
}
