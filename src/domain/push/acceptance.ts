import { createBatcher } from '../../core/batcher.ts'
import type { Clock } from '../../core/clock.ts'
import type { Metrics } from '../../platform/metrics.ts'
import type { Postgres } from '../../platform/postgres/postgres.ts'
import { type AcceptedRows, insertPushes } from './accept-rows.ts'
import type { Alarms } from './alarms.ts'
import { DEVICE_NOT_FOUND } from './errors.ts'
import type { AcceptedPush, NewPush } from './push.ts'
import type { Wakes } from './wakes.ts'

export interface Acceptance {
  /**
   * Takes the pushes of one request, all or none. They are committed when it resolves.
   * @throws DEVICE_NOT_FOUND with a fault for each device that does not exist
   */
  accept(pushes: NewPush[]): Promise<AcceptedPush[]>
  /** Pushes that were asked for and are not committed yet. */
  readonly pending: number
  /** Resolves when nothing is under way, wakes and alarms included. */
  idle(): Promise<void>
}

export interface AcceptanceOptions {
  postgres: Postgres
  wakes: Wakes
  alarms: Alarms
  clock: Clock
  metrics: Metrics
}

/** Most pushes of one statement. */
const maxBatch = 1_000

export function createAcceptance(options: AcceptanceOptions): Acceptance {
  const { postgres, wakes, alarms, clock, metrics } = options
  const following = new Set<Promise<void>>()
  let pending = 0

  /** Not waited for by the answer: what is lost here is found by the listen's own look and by the sweep. */
  const follow = (rows: AcceptedRows, elapsedMs: number): void => {
    alarms.arm(rows.due.map((point) => ({ ...point, saidAt: point.saidAt + elapsedMs })))
    for (const [node, devices] of rows.listening) {
      const sent = wakes.send(node, { kind: 'wake', devices })
      following.add(sent)
      void sent.finally(() => following.delete(sent))
    }
  }

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

  return {
    accept: async (pushes) => {
      pending += pushes.length
      try {
        const answer = await batcher.add(pushes)
        if (answer instanceof Error) throw answer
        for (const push of pushes) {
          metrics.count('baton_pushes_accepted_total', { priority: push.priority ? 'priority' : 'normal' })
        }
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
      await Promise.all([...following, alarms.idle()])
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
    return request.map((push, offset) => ({ id: push.id, devices: rows.devices.get(first + offset) ?? 0 }))
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
